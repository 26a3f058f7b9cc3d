/** A4: two replicas restart one after the other, behind a load balancer with readiness checks. */
import { check } from '../checker.ts'
import { countsOf, toChecks } from '../client-groups.ts'
import { enqueue } from '../clients.ts'
import { drain } from '../drain.ts'
import { createHistory, triesOf } from '../history.ts'
import { closedLoop, openLoop } from '../load.ts'
import type { Service } from '../processes.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const QUEUE = 'rolling'
const POLL_MS = 50
/** Longer than a probe and a balancing round take, on a machine with other load. */
const SHUTDOWN_DELAY_MS = 1_000
/** The load generator shares the machine and would be the bottleneck above this rate. */
const MAX_PER_S = 1_000
const QUICK_PER_S = 150

export const rollingRestart: Scenario = {
  id: 'A4',
  fault: 'rolling restart of two replicas under half load',
  run: (testbed, scale) => restartAll(testbed, scale, scale.isQuick ? 1 : 4, true),
  controls: [
    {
      what: 'a load balancer without readiness checks',
      misses: 'connections reset or refused',
      run: (testbed, scale) => restartAll(testbed, scale, 1, false),
    },
  ],
}

async function restartAll(testbed: Testbed, scale: Scale, rounds: number, probes: boolean): Promise<Finding> {
  const redis = await testbed.redis()
  const env = { SHUTDOWN_DELAY: `${SHUTDOWN_DELAY_MS}` }
  const replicas = [await testbed.service(redis.url, env), await testbed.service(redis.url, env)]
  const balancer = startBalancer(replicas, probes)
  testbed.onEnd(() => balancer.stop())
  const httpClient = testbed.httpClient()
  const history = createHistory(QUEUE)
  const options = { httpClient, history, queue: QUEUE, keys: 'header', retries: true } as const
  const one = (client: number) => enqueue({ ...options, choose: balancer.next }, client)

  const seconds = scale.isQuick ? 0.5 : 1.5
  const atFullSpeed = closedLoop(testbed, scale.isQuick ? 4 : 16, one)
  await sleep(seconds * 1_000)
  await atFullSpeed.stop()
  const ratePerS = Math.min(scale.isQuick ? QUICK_PER_S : MAX_PER_S, history.operations.length / seconds / 2)
  const load = openLoop(testbed, ratePerS, one)
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
        what: 'jobs lost in spite of repeats',
        measured: history.operations.filter(({ outcome }) => outcome !== 'ok').length,
        atMost: 0,
      },
      { what: 'exit codes other than 0', measured: codes.filter((code) => code !== 0).length, atMost: 0 },
      ...toChecks([verdict], seen, [history]),
    ],
    counts: {
      ...countsOf([verdict]),
      restarts: codes.length,
      'jobs/s': Math.round(ratePerS),
      'clean 503s': tries.filter(({ status }) => status === 503).length,
    },
  }
}

/** Round robin over the replicas that were ready at their last probe. */
function startBalancer(replicas: Service[], probes: boolean) {
  const isIn = replicas.map(() => true)
  let turn = 0
  let isStopped = false
  const probing = replicas.map(async (replica, i) => {
    for (; probes && !isStopped; await sleep(POLL_MS)) isIn[i] = await replica.isReady()
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
      await Promise.all(probing)
    },
  }
}
