/** A4: two replicas are restarted one after the other, behind a balancer that asks whether they are ready. */
import { check } from '../checker.ts'
import { enqueue } from '../clients.ts'
import { countsOf, judgements } from '../crowd.ts'
import { drain } from '../drain.ts'
import { createHistory, triesOf } from '../history.ts'
import { closedLoop, openLoop } from '../load.ts'
import type { Service } from '../processes.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep, until } from '../wait.ts'

const QUEUE = 'rolling'
const POLL_MS = 50
/** Above what a probe and a turn of the balancer take, on a machine that has other work too. */
const SHUTDOWN_DELAY_MS = 1_000
/** The generator shares the machine; more than this would be its own limit. */
const MOST_PER_S = 1_000
const QUICK_PER_S = 150

export const rollingRestart: Scenario = {
  id: 'A4',
  fault: 'rolling restart of two replicas under half load',
  run: (stage, scale) => restartAll(stage, scale, scale.isQuick ? 1 : 4, true),
  controls: [
    {
      what: 'a balancer that does not ask whether they are ready',
      misses: 'connections reset or refused',
      run: (stage, scale) => restartAll(stage, scale, 1, false),
    },
  ],
}

async function restartAll(stage: Stage, scale: Scale, rounds: number, isAsking: boolean): Promise<Finding> {
  const redis = await stage.redis()
  const env = { SHUTDOWN_DELAY: `${SHUTDOWN_DELAY_MS}` }
  const replicas = [await stage.service(redis.url, env), await stage.service(redis.url, env)]
  const balancer = startBalancer(replicas, isAsking)
  stage.onEnd(() => balancer.stop())
  const browser = stage.browser()
  const history = createHistory(QUEUE)
  const options = { browser, history, queue: QUEUE, keys: 'header', retries: true } as const
  const one = (client: number) => enqueue({ ...options, choose: balancer.next }, client)

  const seconds = scale.isQuick ? 0.5 : 1.5
  const atFullSpeed = closedLoop(stage, scale.isQuick ? 4 : 16, one)
  await sleep(seconds * 1_000)
  await atFullSpeed.stop()
  const ratePerS = Math.min(scale.isQuick ? QUICK_PER_S : MOST_PER_S, history.operations.length / seconds / 2)
  const load = openLoop(stage, ratePerS, one)
  await sleep(300)
  const codes: (number | null)[] = []
  for (let round = 0; round < rounds; round++) {
    for (const replica of replicas) {
      codes.push(await replica.end())
      await replica.start()
      await until('it is ready again', replica.isReady)
      await sleep(4 * POLL_MS)
      scale.progress(`${codes.length} restarts, ${history.operations.length} jobs`)
    }
  }
  await load.stop()
  const seen = await drain(redis, [QUEUE])
  const verdict = check(history, seen)
  const tries = triesOf(history)
  return {
    checks: [
      {
        what: 'connections reset or refused',
        measured: tries.filter(({ status }) => status === 0).length,
        atMost: 0,
      },
      {
        what: 'jobs that no repeat could save',
        measured: history.operations.filter(({ outcome }) => outcome !== 'ok').length,
        atMost: 0,
      },
      { what: 'exit codes but 0', measured: codes.filter((code) => code !== 0).length, atMost: 0 },
      ...judgements([verdict], seen, [history]),
    ],
    counts: {
      ...countsOf([verdict]),
      restarts: codes.length,
      'jobs/s': Math.round(ratePerS),
      'clean 503s': tries.filter(({ status }) => status === 503).length,
    },
  }
}

/** In turn, those that said they are ready when they were asked last. */
function startBalancer(replicas: Service[], isAsking: boolean) {
  const isIn = replicas.map(() => true)
  let turn = 0
  let isStopped = false
  const asking = replicas.map(async (replica, i) => {
    for (; isAsking && !isStopped; await sleep(POLL_MS)) isIn[i] = await replica.isReady()
  })
  return {
    next(): string {
      for (let tried = 0; tried < replicas.length; tried++) {
        const i = turn++ % replicas.length
        if (isIn[i]) return replicas[i]!.url
      }
      return replicas[turn++ % replicas.length]!.url
    },
    async stop() {
      isStopped = true
      await Promise.all(asking)
    },
  }
}
