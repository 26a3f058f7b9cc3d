/** A3: Redis stands still, and says nothing. */
import { check, percentile } from '../checker.ts'
import { enqueue } from '../clients.ts'
import { countsOf, judgements } from '../crowd.ts'
import { drain } from '../drain.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep, until } from '../wait.ts'

const QUEUE = 'frozen'
/** REDIS_COMMAND_TIMEOUT as it is promised to the clients. */
const TIMEOUT_MS = 1_000
const FREEZES = 3

export const redisFrozen: Scenario = {
  id: 'A3',
  fault: 'Redis frozen (SIGSTOP) under load',
  run: (stage, scale) => freeze(stage, scale, TIMEOUT_MS, scale.isQuick ? 1 : FREEZES),
  controls: [
    {
      what: 'a service that gives Redis three times as long',
      misses: 'answered, ms',
      run: (stage, scale) => freeze(stage, scale, 3 * TIMEOUT_MS, 1),
    },
  ],
}

async function freeze(stage: Stage, scale: Scale, timeoutMs: number, times: number): Promise<Finding> {
  const redis = await stage.redis()
  const service = await stage.service(redis.url, { REDIS_COMMAND_TIMEOUT: `${timeoutMs}` })
  const browser = stage.browser()
  const history = createHistory(QUEUE)
  const load = openLoop(stage, 200, (client) =>
    enqueue(
      { browser, history, queue: QUEUE, keys: 'none', retries: false, choose: () => service.url },
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
        what: `answered, ms, where REDIS_COMMAND_TIMEOUT is ${TIMEOUT_MS}: ${scale.isQuick ? 'p50 of those in flight' : 'the last'}`,
        measured: scale.isQuick ? percentile(timesOf(timedOut), 0.5) : Math.max(...timesOf(hurt)),
        atMost: TIMEOUT_MS + (scale.isQuick ? 1_000 : 100),
      },
      { what: 'timed out', measured: timedOut.length, atLeast: 1 },
      {
        what: 'timed out and not called unknown',
        measured: timedOut.filter(({ outcome }) => outcome !== 'unknown').length,
        atMost: 0,
      },
      ...judgements([verdict], seen, [history]),
    ],
    counts: { ...countsOf([verdict]), 'times frozen': times, 'answers while frozen': hurt.length },
  }
}
