/** A5: Redis responds with errors. Each gets its own problem code, and the service recovers without a restart. */
import { Queue } from 'bullmq'
import { enqueue } from '../clients.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import type { RedisServer, Service } from '../processes.ts'
import type { TcpProxy } from '../proxy.ts'
import type { Control, Finding, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const QUEUE = 'refused'
const RECOVERY_MS = 5_000

interface Refusal {
  id: string
  fault: string
  /** The allowed problem codes while the fault lasts; empty: no job may be refused. */
  codes: string[]
  args?: string[]
  fsync?: 'no'
  cause(targets: Targets): Promise<unknown>
  /** Ends the fault; resolves when Redis executes commands again. */
  repair(targets: Targets): Promise<unknown>
}

interface Targets {
  redis: RedisServer
  proxy: TcpProxy
}

const refusals: Refusal[] = [
  {
    id: 'LOADING',
    fault: 'Redis restarts and loads its data slowly',
    // ioredis reports a connection as ready only after loading, and sends no command before.
    codes: ['REDIS_LOADING', 'REDIS_UNAVAILABLE'],
    // Delays the load of each command in the file.
    args: ['--key-load-delay', '300', '--loading-process-events-interval-bytes', '1024'],
    fsync: 'no',
    async cause({ redis }) {
      const queue = new Queue(QUEUE, { connection: redis.client })
      await queue.addBulk(Array.from({ length: 600 }, () => ({ name: 'n', data: { payload: 'filler' } })))
      await redis.kill()
      void redis.start()
      await until('it loads', async () => (await redis.ping()).startsWith('-LOADING'))
    },
    repair: ({ redis }) => redis.firstPong(),
  },
  {
    id: 'READONLY',
    fault: 'Redis becomes a replica',
    codes: ['REDIS_READONLY', 'REDIS_UNAVAILABLE'],
    cause: ({ redis }) => redis.client.replicaof('127.0.0.1', '1'),
    repair: ({ redis }) => redis.client.replicaof('NO', 'ONE'),
  },
  {
    id: 'MISCONF',
    fault: 'Redis cannot write its snapshot',
    codes: ['REDIS_MISCONFIGURED'],
    args: ['--enable-protected-configs', 'yes'],
    async cause({ redis: { client } }) {
      await client.config('SET', 'save', '3600 1000000')
      await client.config('SET', 'dir', '/proc')
      await client.bgsave()
      await until('the snapshot has failed', async () =>
        (await client.info('persistence')).includes('rdb_last_bgsave_status:err'),
      )
    },
    repair: ({ redis }) => redis.client.config('SET', 'stop-writes-on-bgsave-error', 'no'),
  },
  {
    id: 'OOM',
    fault: 'Redis is out of memory',
    codes: ['REDIS_FULL'],
    cause: ({ redis }) => redis.client.config('SET', 'maxmemory', '1'),
    repair: ({ redis }) => redis.client.config('SET', 'maxmemory', '0'),
  },
  {
    id: 'NOSCRIPT',
    fault: 'SCRIPT FLUSH',
    codes: [],
    cause: ({ redis }) => redis.client.script('FLUSH'),
    repair: async () => {},
  },
  {
    id: 'maxclients',
    fault: 'Redis accepts no more connections, and existing ones are closed',
    // Redis sends the reason before it disconnects, but ioredis mostly has an EPIPE by then.
    codes: ['REDIS_LIMIT', 'REDIS_UNAVAILABLE'],
    async cause({ redis: { client } }) {
      await client.config('SET', 'maxclients', '1')
      await client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    },
    repair: ({ redis }) => redis.client.config('SET', 'maxclients', '10000'),
  },
  {
    id: 'ACL',
    fault: 'the Redis user may not run scripts',
    codes: ['REDIS_DENIED'],
    cause: ({ redis }) => redis.client.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval'),
    repair: ({ redis }) => redis.client.call('ACL', 'SETUSER', 'default', '+@all'),
  },
  {
    id: 'provider',
    fault: "every command gets a provider's limit error",
    codes: ['REDIS_LIMIT'],
    async cause({ proxy }) {
      proxy.faults.replyWithError = 'ERR max daily request limit exceeded. Limit: 500000, Usage: 500000.'
    },
    async repair({ proxy }) {
      proxy.faults.replyWithError = undefined
    },
  },
]

export const redisErrors: Scenario[] = refusals.map((refusal) => ({
  id: `A5 ${refusal.id}`,
  fault: refusal.fault,
  run: (testbed) => refuse(testbed, refusal, (url) => testbed.service(url)),
  controls: refusal.id === 'OOM' ? [naive(refusal)] : [],
}))

function naive(refusal: Refusal): Control {
  return {
    what: 'a service that does not classify Redis errors',
    misses: 'responses other than',
    run: (testbed) =>
      refuse(testbed, refusal, (url) => testbed.otherService('test/faults/naive-service.ts', url)),
  }
}

async function refuse(
  testbed: Testbed,
  { codes, args = [], fsync, cause, repair }: Refusal,
  start: (redisUrl: string) => Promise<Service>,
): Promise<Finding> {
  const redis = await testbed.redis({ args, ...(fsync === undefined ? {} : { fsync }) })
  const proxy = await testbed.proxy(redis.place)
  const service = await start(`redis://127.0.0.1:${proxy.port}`)
  const httpClient = testbed.httpClient()
  const history = createHistory(QUEUE)
  const options = { httpClient, history, queue: QUEUE, keys: 'none', retries: false } as const
  const load = openLoop(testbed, 50, (client) => enqueue({ ...options, choose: () => service.url }, client))
  const since = (at: number) => triesOf(history).filter((one) => one.at >= at)
  await until('jobs are taken', () => since(0).some(({ outcome }) => outcome === 'ok'))
  const causedAt = performance.now()
  await cause({ redis, proxy })
  const refusedAt = performance.now()
  await sleep(1_000)
  const refused = since(refusedAt)
  await repair({ redis, proxy })
  const repairedAt = performance.now()
  await until('jobs are taken again', () => since(repairedAt).some(({ outcome }) => outcome === 'ok'), 30_000)
  const recoveredAt = since(repairedAt).find(({ outcome }) => outcome === 'ok')!
  await load.stop()
  const isExpected = ({ outcome, code }: Try) => outcome === 'ok' || codes.includes(code ?? '')
  const named = refused.filter(({ code }) => codes.includes(code ?? ''))
  const unexpected = since(causedAt).filter((one) => !isExpected(one))
  return {
    checks: [
      {
        what: `responses other than 201 and ${codes.join(', ') || 'nothing else'}`,
        measured: unexpected.length,
        atMost: 0,
      },
      ...(codes.length > 0 ? [{ what: 'responses with this code', measured: named.length, atLeast: 1 }] : []),
      {
        what: 'first 201 after the repair, ms',
        measured: recoveredAt.at + recoveredAt.ms - repairedAt,
        atMost: RECOVERY_MS,
      },
    ],
    counts: { ...countCodes(unexpected), ...countCodes(named), jobs: history.operations.length },
  }
}

function countCodes(tries: Try[]): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { status, code } of tries) {
    const name = code ?? `${status}`
    counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}
