/** O2: Redis fills up. The service rejects new jobs while workers, whose scripts write too, still have memory. */
import { Queue } from 'bullmq'
import { check } from '../checker.ts'
import { toChecks } from '../client-groups.ts'
import { enqueue } from '../clients.ts'
import { startDrain } from '../drain.ts'
import { createHistory, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import type { RedisServer } from '../processes.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { until } from '../timing.ts'

const QUEUE = 'full'
const MAX_MB = 40
/** Fills 15 % of maxmemory a second; the service checks memory once a second. */
const FILL_PER_S = 300
const filler = 'x'.repeat(20_000)

export const redisFull: Scenario = {
  id: 'O2',
  fault: 'memory at 80 % of maxmemory',
  run: (testbed, scale) => fillUp(testbed, scale, {}),
  controls: [
    {
      what: 'a service without a memory watermark',
      misses: 'OOM errors of workers',
      run: (testbed, scale) => fillUp(testbed, scale, { REDIS_MEMORY_WATERMARK: '0' }),
    },
  ],
}

async function fillUp(testbed: Testbed, scale: Scale, env: Record<string, string>): Promise<Finding> {
  const redis = await testbed.redis({ args: ['--maxmemory', `${MAX_MB}mb`] })
  const service = await testbed.service(redis.url, env)
  const httpClient = testbed.httpClient()
  const history = createHistory(QUEUE)
  const options = {
    httpClient,
    history,
    queue: QUEUE,
    keys: 'none',
    retries: false,
    opts: { removeOnComplete: true },
    choose: () => service.url,
  } as const
  const refusals = () => triesOf(history).filter(({ outcome }) => outcome === 'fail').length

  const filling = openLoop(testbed, FILL_PER_S, (client) => enqueue({ ...options, data: { filler } }, client))
  await until('jobs are refused', () => refusals() > 20, 60_000)
  await filling.stop()
  const usedAt = await usedShare(redis)
  scale.progress(`refused at ${Math.round(usedAt * 100)} %`)

  // Some clients keep enqueueing while a worker drains.
  const knocking = openLoop(testbed, 20, (client) => enqueue(options, client))
  const waiting = await new Queue(QUEUE, { connection: redis.client }).getWaitingCount()
  const draining = await startDrain(redis, [QUEUE])
  const isDrained = () => draining.executed() >= waiting
  await until('the queue is drained', () => isDrained() || draining.errors.some(isOom), 30_000)
  const left = Math.max(0, waiting - draining.executed())
  const oom = draining.errors.filter(isOom).length
  // A worker that got OOM retries in a tight loop; do not wait for it.
  if (oom > 0) await redis.client.config('SET', 'maxmemory', '0')
  const drainedAt = performance.now()
  const takenAgain = () => triesOf(history).some(({ at, outcome }) => at > drainedAt && outcome === 'ok')
  await until('jobs are taken again', takenAgain)
  await knocking.stop()
  const seen = await draining.finish()
  const codes = triesOf(history).filter(({ outcome, code }) => outcome !== 'ok' && code !== 'REDIS_FULL')
  return {
    checks: [
      { what: 'OOM errors of workers', measured: oom, atMost: 0 },
      { what: 'jobs the worker could not drain', measured: left, atMost: 0 },
      { what: 'share of maxmemory when refused, at least', measured: usedAt, atLeast: 0.75 },
      { what: 'share of maxmemory when refused, at most', measured: usedAt, atMost: 0.9 },
      { what: 'refused with another code than REDIS_FULL', measured: codes.length, atMost: 0 },
      ...toChecks([check(history, seen)], seen, [history]),
    ],
    counts: { jobs: history.operations.length, 'refused with REDIS_FULL': refusals() },
  }
}

function isOom(message: string): boolean {
  return message.includes('OOM')
}

async function usedShare({ client }: RedisServer): Promise<number> {
  const info = await client.info('memory')
  const field = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1])
  return field('used_memory') / field('maxmemory')
}
