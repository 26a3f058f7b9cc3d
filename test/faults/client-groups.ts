/**
 * Runs several groups of clients, each with its own queue and history, and finally compares their histories with the jobs
 * in Redis. Shared by the durability scenarios.
 */
import { addUp, check, type Seen, type Verdict } from './checker.ts'
import { type EnqueuerOptions, enqueue, type Keys } from './clients.ts'
import { drain } from './drain.ts'
import { createHistory, type History, triesOf } from './history.ts'
import { closedLoop } from './load.ts'
import type { RedisServer } from './processes.ts'
import type { Check, Finding, Scale } from './scenario.ts'
import type { Testbed } from './testbed.ts'
import { sleep } from './timing.ts'

const PAUSE_MS = 20
const SAMPLES = 3

export interface ClientGroup extends Pick<EnqueuerOptions, 'choose' | 'timeoutMs'> {
  keys: Keys
  retries: boolean
  clients: number
}

export interface ClientGroups {
  readonly histories: readonly History[]
  acknowledged(): number
  mark(what: string): void
  /** Waits for all clients to finish, then compares the histories with what Redis holds. */
  judge(redis: RedisServer): Promise<Finding>
}

/** Clients that repeat with an Idempotency-Key, clients that repeat with a jobId, and clients that never repeat. */
export function threeGroups(
  { isQuick }: Scale,
  choose: EnqueuerOptions['choose'],
  timeoutMs = 10_000,
): ClientGroup[] {
  const clients = isQuick ? 3 : 8
  return [
    { keys: 'header', retries: true, clients, choose, timeoutMs },
    { keys: 'jobId', retries: true, clients, choose, timeoutMs },
    { keys: 'none', retries: false, clients, choose, timeoutMs },
  ]
}

export function startClientGroups(testbed: Testbed, kinds: ClientGroup[]): ClientGroups {
  const httpClient = testbed.httpClient()
  const groups = kinds.map((kind) => {
    const queue = `${kind.keys}-${kind.retries ? 'repeated' : 'once'}`
    const history = createHistory(queue)
    return { kind, queue, history }
  })
  const loops = groups.map(({ kind, queue, history }) =>
    closedLoop(testbed, kind.clients, async (client) => {
      const { outcome } = await enqueue({ httpClient, history, queue, ...kind }, client)
      // Limits the rate of clients that do not repeat, which could otherwise be refused in a tight loop.
      if (outcome !== 'ok') await sleep(PAUSE_MS)
    }),
  )
  const histories = groups.map(({ history }) => history)
  return {
    histories,
    acknowledged: () =>
      histories.reduce(
        (sum, { operations }) => sum + operations.filter(({ outcome }) => outcome === 'ok').length,
        0,
      ),
    mark(what) {
      for (const history of histories) history.mark(what)
    },
    async judge(redis) {
      await Promise.all(loops.map((loop) => loop.stop()))
      const seen = await drain(
        redis,
        groups.map(({ queue }) => queue),
      )
      const verdicts = groups.map(({ history, queue }) => check(history, selectSeen(seen, queue)))
      return { checks: toChecks(verdicts, seen, histories), counts: countsOf(verdicts) }
    },
  }
}

/** What was seen of one history, whose payloads start with the queue's name. */
function selectSeen({ jobs, executions, broken }: Seen, queue: string): Seen {
  const own = <Value>(all: Map<string, Value>) =>
    new Map([...all].filter(([payload]) => payload.startsWith(`${queue}-`)))
  return { jobs: own(jobs), executions: own(executions), broken }
}

export function toChecks(verdicts: Verdict[], seen: Seen, histories: readonly History[]): Check[] {
  const operations = new Map(
    histories.flatMap((history) => history.operations.map((operation) => [operation.payload, operation])),
  )
  const sample = (payload: string) =>
    JSON.stringify({ ...operations.get(payload), ids: idsOf(seen, payload) })
  const none = (what: string, found: string[], describe = sample): Check => ({
    what,
    measured: found.length,
    atMost: 0,
    samples: found.slice(0, SAMPLES).map(describe),
  })
  const all = (name: 'lost' | 'duplicated' | 'falseFail' | 'unexpected' | 'misnamed') =>
    verdicts.flatMap((verdict) => verdict[name])
  const asItIs = (text: string) => text
  return [
    none('lost', all('lost')),
    none('duplicated', all('duplicated')),
    none('false fail', all('falseFail')),
    none('unexpected', all('unexpected')),
    none('acknowledged with another id', all('misnamed')),
    none('incomplete jobs', seen.broken, asItIs),
    none(
      'responses other than 2xx and 503 with a code',
      histories
        .flatMap(triesOf)
        .filter(isUnexpectedResponse)
        .map((one) => JSON.stringify(one)),
      asItIs,
    ),
  ]
}

function idsOf({ jobs }: Seen, payload: string): string[] {
  return [...(jobs.get(payload) ?? [])]
}

export function countsOf(verdicts: Verdict[]): Record<string, number> {
  const { attempted, acknowledged, failed, unknown, recovered, redelivered } = addUp(verdicts)
  return { jobs: attempted, acknowledged, refused: failed, unknown, recovered, 'run twice': redelivered }
}

function isUnexpectedResponse({ status, code }: { status: number; code: string | undefined }): boolean {
  if (status === 0 || status === 200 || status === 201) return false
  return status !== 503 || code === undefined
}
