/** X1: small requests for large answers: many times the same large job, pages of large results, long logs, missed events. */
import { Queue, Worker } from 'bullmq'
import { attackBeside, openTarget, type Target, type TargetOptions, withChecks } from '../attacks.ts'
import { createDrain, type Drained, isDocumented } from '../raw-http.ts'
import { controlScale, type Finding, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const MB = 1_048_576
/** MAX_ANSWER_BYTES, and the rest of the response. */
const LARGEST_ANSWER = 9 * MB
const CLIENTS = 24
/** Enough to stop a service without bounds; more would only keep Redis busy for longer. */
const CONTROL_CLIENTS = 4
const IDS = 200

export const amplifiedReads: Scenario = {
  id: 'X1',
  fault: 'small requests for large answers: one job 200 times, pages of results, logs, missed events',
  run: (testbed, scale) => readAmplified(testbed, scale, {}),
  controls: [
    {
      what: 'a service that renders whatever is asked for',
      misses: 'ordinary requests not answered with 2xx',
      run: (testbed, scale) => readAmplified(testbed, controlScale(scale), { isBoundless: true }),
    },
  ],
}

async function readAmplified(testbed: Testbed, scale: Scale, options: TargetOptions): Promise<Finding> {
  const target = await openTarget(testbed, options)
  const { redis, service } = target
  // The control needs only the attack that ends it.
  const paths = options.isBoundless ? [await addLargeJob(target, 1)] : await addAll(testbed, target, scale)
  await redis.client.config('SET', 'slowlog-log-slower-than', '20000')
  const clientCount = options.isBoundless ? CONTROL_CLIENTS : CLIENTS
  const drain = createDrain(testbed)
  const answers: Drained[] = []
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const deadline = performance.now() + seconds * 1_000
    const clients = paths.flatMap((path, kind) =>
      Array.from({ length: kind === 0 ? clientCount : 4 }, async () => {
        while (performance.now() < deadline) {
          const timeoutMs = deadline + 2_000 - performance.now()
          const answer = await drain(service.url + path, { headers: target.attacker, timeoutMs })
          answers.push(answer)
          // A refused client comes back, but not at once.
          if (answer.status !== 200) await sleep(50)
        }
      }),
    )
    const following = followFromStart(deadline, target, drain)
    await Promise.all([...clients, following])
  })
  // That large reads take long is no fault.
  const odd = answers.filter((answer) => !isDocumented(answer) && !answer.isTimeout)
  const slow = (await redis.client.call('SLOWLOG', 'GET', '10')) as [number, number, number, string[]][]
  return withChecks(
    finding,
    [
      {
        what: 'reads answered other than with 2xx or a problem with a code',
        measured: odd.length,
        atMost: 0,
        samples: odd.slice(0, 3).map((one) => JSON.stringify(one)),
      },
      {
        what: 'largest answer, MB',
        measured: Math.max(0, ...answers.map(({ bytes }) => bytes)) / MB,
        atMost: LARGEST_ANSWER / MB,
      },
      {
        what: 'longest command of Redis, ms',
        measured: Math.max(0, ...slow.map(([, , us]) => us / 1_000)),
        atMost: scale.isQuick ? 200 : 100,
        samples: slow.slice(0, 3).map(([, , us, [name]]) => `${name} ${us / 1_000} ms`),
      },
    ],
    { 'large reads': answers.length, 'answered 200': answers.filter(({ status }) => status === 200).length },
  )
}

async function addAll(testbed: Testbed, target: Target, { isQuick }: Scale): Promise<string[]> {
  const many = await addLargeJob(target, 1)
  const manyLarger = await addLargeJob(target, 4.8)
  const count = isQuick ? 40 : 200
  const { client } = target.redis
  const results = new Queue('results', { connection: client })
  await results.addBulk(Array.from({ length: count }, () => ({ name: 'n', data: {} })))
  const result = 'r'.repeat(MB)
  const connection = { ...target.redis.place, maxRetriesPerRequest: null }
  const worker = new Worker('results', async () => result, { connection, concurrency: 4 })
  testbed.onEnd(() => worker.close(true))
  await until('large results exist', async () => (await results.getCompletedCount()) === count, 60_000)
  await worker.close()
  const logs = new Queue('logs', { connection: client })
  await logs.add('n', {}, { jobId: 'long' })
  const line = 'l'.repeat(65_000)
  for (let i = 0; i < 10; i++) {
    const lines = Array.from({ length: isQuick ? 30 : 100 }, () => line)
    await client.rpush('bull:logs:long:logs', ...lines)
  }
  return [many, manyLarger, '/jobs?queue=results&limit=200', '/jobs/logs:long?include=logs']
}

/** The path of a request that names the job 200 times. */
async function addLargeJob({ redis }: Target, size: number): Promise<string> {
  const queue = new Queue('large', { connection: redis.client })
  const jobId = `of-${size}`.replace('.', '-')
  await queue.add('n', { text: 'd'.repeat(size * MB) }, { jobId })
  return `/jobs?include=data&ids=${Array.from({ length: IDS }, () => `large:${jobId}`).join()}`
}

/** Clients that reconnect with Last-Event-ID, and miss all results. */
async function followFromStart(
  deadline: number,
  { service, attacker }: Target,
  drain: ReturnType<typeof createDrain>,
): Promise<void> {
  const headers = { ...attacker, 'last-event-id': '0-1', accept: 'text/event-stream' }
  while (performance.now() < deadline) {
    const clients = Array.from({ length: 4 }, () =>
      // Such a stream does not end by itself.
      drain(`${service.url}/queues/results/events`, { headers, timeoutMs: 1_000 }),
    )
    await Promise.all(clients)
    await sleep(50)
  }
}
