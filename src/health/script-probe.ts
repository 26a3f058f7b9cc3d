/**
 * Whether Redis runs scripts for this service, on the connection that writes jobs. Every job is written by a script, so a
 * Redis that answers PING but refuses EVALSHA accepts no jobs. The result is kept for a while, so that probes of readiness
 * cost no command; it is dropped when a connection changes, because the user's permissions may have changed with it.
 */
import { SluiceError } from '../errors.ts'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import { probeScripts } from '../redis/scripts/run-script.ts'

export interface ScriptProbe {
  /** Resolves with the reason why no script runs; `undefined`: they run. Rejects with a SluiceError if Redis fails otherwise. */
  problem(): Promise<string | undefined>
}

/** How long a result holds, ms. A failure holds for less, so that the recovery is seen. */
const SUCCESS_TTL_MS = 10_000
const FAILURE_TTL_MS = 1_000

const PROBE: RedisOperation = { label: 'probeScripts', priority: 'list', isWrite: true, commands: 1 }

/** A write, so it takes the connection for durable writes if there is one. The queue chooses one of the others. */
const ANY_QUEUE = ''

export function createScriptProbe(
  gateway: RedisGateway,
  connections: Pick<RedisConnections, 'onChange'>,
  now: () => number = () => performance.now(),
): ScriptProbe {
  let last: { problem: string | undefined; atMs: number } | undefined
  let running: Promise<string | undefined> | undefined
  let epoch = 0
  connections.onChange(() => {
    epoch++
    last = undefined
    running = undefined
  })

  async function probe(): Promise<string | undefined> {
    const startedIn = epoch
    const problem = await gateway
      .onQueue(ANY_QUEUE, PROBE, probeScripts)
      .then(() => undefined, describeRefusal)
    if (epoch === startedIn) last = { problem, atMs: now() }
    return problem
  }

  return {
    async problem() {
      const ttlMs = last?.problem === undefined ? SUCCESS_TTL_MS : FAILURE_TTL_MS
      if (last && now() - last.atMs < ttlMs) return last.problem
      running ??= shareUntilSettled()
      return running
    },
  }

  function shareUntilSettled(): Promise<string | undefined> {
    const sharing = probe().finally(() => {
      if (running === sharing) running = undefined
    })
    return sharing
  }
}

/** Rethrows what does not come from a missing permission: that is reported as any failure of Redis is. */
function describeRefusal(error: unknown): string {
  if (!(error instanceof SluiceError) || error.code !== 'REDIS_DENIED') throw error
  return (
    'Redis refuses to run scripts, so no job is accepted. Allow its user EVALSHA and EVAL (+evalsha +eval in its ACL), and ' +
    'remove any rename-command of them.'
  )
}
