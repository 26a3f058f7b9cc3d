/** A3: Redis is stopped (SIGSTOP) and does not respond. */
import { check, percentile } from '../checker.ts'
import { countsOf, toChecks } from '../client-groups.ts'
import { enqueue } from '../clients.ts'
import { drain } from '../drain.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const QUEUE = 'frozen'
/** REDIS_COMMAND_TIMEOUT of the guarantee. */
const TIMEOUT_MS = 1_000
const FREEZES = 3

export const redisFrozen: Scenario = {
  id: 'A3',
  fault: 'Redis frozen (SIGSTOP) under load',
  run: (testbed, scale) => freeze(testbed, scale, TIMEOUT_MS, scale.isQuick ? 1 : FREEZES),
  controls: [
    {
      what: 'a service with three times the command timeout',
      misses: 'response time, ms',
      run: (testbed, scale) => freeze(testbed, scale, 3 * TIMEOUT_MS, 1),
    },
  ],
}

async function freeze(testbed: Testbed, scale: Scale, timeoutMs: number, times: number): Promise<Finding> {
  const redis = await testbed.redis()
  const service = await testbed.service(redis.url, { REDIS_COMMAND_TIMEOUT: `${timeoutMs}` })
  const httpClient = testbed.httpClient()
  const history = createHistory(QUEUE)
  const load = openLoop(testbed, 200, (client) =>
    enqueue(
      { httpClient, history, queue: QUEUE, keys: 'none', retries: false, choose: () => service.url },
      client,
    ),
  )
  const frozen: { from: number; to: number }[] = []
  for (let i = 0; i < times; i++) {
    await sleep(700)
    const from = performance.now()
    redis.freeze()
    await sleep(2.2 * timeoutMs)
    frozen.push({ from, to: performance.now() })
    redis.thaw()
    await until('jobs are taken again', () => {
      const last = triesOf(history).at(-1)
      return last?.outcome === 'ok' && last.at > frozen.at(-1)!.to
    })
  }
  await load.stop()
  const hurt = triesOf(history).filter(({ at, ms }) =>
    frozen.some(({ from, to }) => at + ms > from && at < to),
  )
  const timesOf = (some: Try[]) => some.map(({ ms }) => ms)
  const timedOut = hurt.filter(({ code }) => code === 'REDIS_TIMEOUT')
  const seen = await drain(redis, [QUEUE])
  const verdict = check(history, seen)
  return {
    checks: [
      {
        what: `response time, ms, with REDIS_COMMAND_TIMEOUT ${TIMEOUT_MS}: ${scale.isQuick ? 'p50 of those in flight' : 'the last'}`,
        measured: scale.isQuick ? percentile(timesOf(timedOut), 0.5) : Math.max(...timesOf(hurt)),
        atMost: TIMEOUT_MS + (scale.isQuick ? 1_000 : 100),
      },
      { what: 'timed out', measured: timedOut.length, atLeast: 1 },
      {
        what: 'timed out and not reported as unknown',
        measured: timedOut.filter(({ outcome }) => outcome !== 'unknown').length,
        atMost: 0,
      },
      ...toChecks([verdict], seen, [history]),
    ],
    counts: { ...countsOf([verdict]), 'times frozen': times, 'responses while frozen': hurt.length },
  }
}
