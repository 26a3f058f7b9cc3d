/** X3: sockets that send requests which wait, without an end and without reading; and waits on queues that do not exist. */
import { Queue } from 'bullmq'
import { attackBeside, openTarget, type Target, type TargetOptions, withChecks } from '../attacks.ts'
import { pipeline, requestText } from '../raw-http.ts'
import { type Check, controlScale, type Finding, judgeTimes, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { takeWaiting } from '../wake-ups.ts'

const QUICK_MEMORY_MB = 80
const MEMORY_MB = 150
const WAKE_MS = 100
/** One of them sends half of all requests. */
const SOCKETS = 21

export const pipelinedWaits: Scenario = {
  id: 'X3 sockets',
  fault: '131,000 requests that wait 30 s, half of them pipelined on one socket, the rest on 20',
  run: (testbed, scale) => waitOnSockets(testbed, scale, {}),
  controls: [
    {
      what: 'a service that holds every request that waits',
      misses: 'memory grown',
      run: (testbed, scale) => waitOnSockets(testbed, controlScale(scale), { isBoundless: true }),
    },
  ],
}

export const waitsOnManyQueues: Scenario = {
  id: 'X3 queues',
  fault: 'waits for jobs of 200,000 queues that do not exist',
  run: (testbed, scale) => waitOnSockets(testbed, scale, { namesQueues: true }),
  controls: [
    {
      what: 'a service that follows every queue it is asked for',
      misses: 'wake-up of a waiting worker',
      run: (testbed, scale) =>
        waitOnSockets(testbed, controlScale(scale), { namesQueues: true, isBoundless: true }),
    },
  ],
}

interface WaitOptions extends TargetOptions {
  /** Each request names another queue. */
  namesQueues?: boolean
}

async function waitOnSockets(
  testbed: Testbed,
  scale: Scale,
  { namesQueues = false, ...options }: WaitOptions,
): Promise<Finding> {
  const target = await openTarget(testbed, options)
  const { redis, service } = target
  await new Queue('watched', { connection: redis.client }).add('n', {}, { jobId: 'one' })
  const total = scale.isQuick ? 20_000 : namesQueues ? 200_000 : 131_000
  const text = namesQueues ? takeOfQueue(target) : waitOf(target)
  let [sent, next] = [0, 0]
  let wakeMs: number[] = []
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const waking = takeWaiting(testbed, target, 'awaited', seconds)
    const sending = Array.from({ length: SOCKETS }, (_, index) => {
      const share = index === 0 ? total / 2 : total / 2 / (SOCKETS - 1)
      return pipeline(testbed, service.url, () => text(next++), Math.ceil(share), seconds)
    })
    sent = (await Promise.all(sending)).reduce((sum, one) => sum + one)
    wakeMs = await waking
  })
  const { beforeMb, mostMb } = finding.attack
  const memory: Check = {
    what: 'memory grown, MB',
    measured: mostMb - beforeMb,
    atMost: scale.isQuick ? QUICK_MEMORY_MB : MEMORY_MB,
  }
  return withChecks(finding, [memory, judgeTimes(scale, 'wake-up of a waiting worker', wakeMs, WAKE_MS)], {
    'requests sent': sent,
    'wake-ups': wakeMs.length,
  })
}

/** Half wait for a job to work, half for a job to change. */
function waitOf({ attacker }: Target): (index: number) => string {
  const take = requestText('/queues/idle/leases', attacker, '{"wait":30}')
  const poll = requestText('/jobs/watched:one?wait=30', attacker)
  return (index) => (index % 2 === 0 ? take : poll)
}

function takeOfQueue({ attacker }: Target): (index: number) => string {
  const [before, after] = requestText('/queues/NAME/leases', attacker, '{"wait":30}').split('NAME')
  return (index) => `${before}none-${index}${after}`
}
