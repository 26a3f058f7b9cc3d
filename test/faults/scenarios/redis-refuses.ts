/** A5: Redis answers, but not what was asked for. Each error has its name, and it passes without a restart. */
import { Queue } from 'bullmq'
import { enqueue } from '../clients.ts'
import { createHistory, type Try, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import type { RedisServer, Service } from '../processes.ts'
import type { TcpProxy } from '../proxy.ts'
import type { Control, Finding, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep, until } from '../wait.ts'

const QUEUE = 'refused'
const RECOVERY_MS = 5_000

interface Refusal {
  id: string
  fault: string
  /** The codes that may be answered while it lasts; `none`: no job may be refused. */
  codes: string[]
  args?: string[]
  fsync?: 'no'
  cause(at: Place): Promise<unknown>
  /** Resolves when Redis would do again what it is asked. */
  mend(at: Place): Promise<unknown>
}

interface Place {
  redis: RedisServer
  proxy: TcpProxy
}

const refusals: Refusal[] = [
  {
    id: 'LOADING',
    fault: 'Redis restarts and loads its data slowly',
    // The client library takes a connection for ready once Redis has loaded, so that no command is sent before.
    codes: ['REDIS_LOADING', 'REDIS_UNAVAILABLE'],
    // Each command in the file takes a while to load.
    args: ['--key-load-delay', '300', '--loading-process-events-interval-bytes', '1024'],
    fsync: 'no',
    async cause({ redis }) {
      const queue = new Queue(QUEUE, { connection: redis.client })
      await queue.addBulk(Array.from({ length: 600 }, () => ({ name: 'n', data: { payload: 'filler' } })))
      await redis.kill()
      void redis.start()
      await until('it loads', async () => (await redis.ping()).startsWith('-LOADING'))
    },
    mend: ({ redis }) => redis.firstPong(),
  },
  {
    id: 'READONLY',
    fault: 'Redis becomes a replica',
    codes: ['REDIS_READONLY', 'REDIS_UNAVAILABLE'],
    cause: ({ redis }) => redis.client.replicaof('127.0.0.1', '1'),
    mend: ({ redis }) => redis.client.replicaof('NO', 'ONE'),
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
    mend: ({ redis }) => redis.client.config('SET', 'stop-writes-on-bgsave-error', 'no'),
  },
  {
    id: 'OOM',
    fault: 'Redis is out of memory',
    codes: ['REDIS_FULL'],
    cause: ({ redis }) => redis.client.config('SET', 'maxmemory', '1'),
    mend: ({ redis }) => redis.client.config('SET', 'maxmemory', '0'),
  },
  {
    id: 'NOSCRIPT',
    fault: 'SCRIPT FLUSH',
    codes: [],
    cause: ({ redis }) => redis.client.script('FLUSH'),
    mend: async () => {},
  },
  {
    id: 'maxclients',
    fault: 'Redis takes no more connections, and those there were are closed',
    // Redis says why before it hangs up, but the client library mostly has an EPIPE by then.
    codes: ['REDIS_LIMIT', 'REDIS_UNAVAILABLE'],
    async cause({ redis: { client } }) {
      await client.config('SET', 'maxclients', '1')
      await client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    },
    mend: ({ redis }) => redis.client.config('SET', 'maxclients', '10000'),
  },
  {
    id: 'ACL',
    fault: 'the user may run no scripts',
    codes: ['REDIS_DENIED'],
    cause: ({ redis }) => redis.client.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval'),
    mend: ({ redis }) => redis.client.call('ACL', 'SETUSER', 'default', '+@all'),
  },
  {
    id: 'provider',
    fault: "every command is answered with a provider's limit error",
    codes: ['REDIS_LIMIT'],
    async cause({ proxy }) {
      proxy.faults.answerWith = 'ERR max daily request limit exceeded. Limit: 500000, Usage: 500000.'
    },
    async mend({ proxy }) {
      proxy.faults.answerWith = undefined
    },
  },
]

export const redisRefuses: Scenario[] = refusals.map((refusal) => ({
  id: `A5 ${refusal.id}`,
  fault: refusal.fault,
  run: (stage) => refuse(stage, refusal, (url) => stage.service(url)),
  controls: refusal.id === 'OOM' ? [naive(refusal)] : [],
}))

function naive(refusal: Refusal): Control {
  return {
    what: 'a service that knows no errors of Redis',
    misses: 'answers but',
    run: (stage) => refuse(stage, refusal, (url) => stage.other('test/faults/naive-service.ts', url)),
  }
}

async function refuse(
  stage: Stage,
  { codes, args = [], fsync, cause, mend }: Refusal,
  start: (redisUrl: string) => Promise<Service>,
): Promise<Finding> {
  const redis = await stage.redis({ args, ...(fsync === undefined ? {} : { fsync }) })
  const proxy = await stage.proxy(redis.place)
  const service = await start(`redis://127.0.0.1:${proxy.port}`)
  const browser = stage.browser()
  const history = createHistory(QUEUE)
  const options = { browser, history, queue: QUEUE, keys: 'none', retries: false } as const
  const load = openLoop(stage, 50, (client) => enqueue({ ...options, choose: () => service.url }, client))
  const since = (at: number) => triesOf(history).filter((one) => one.at >= at)
  await until('jobs are taken', () => since(0).some(({ outcome }) => outcome === 'ok'))
  const causedAt = performance.now()
  await cause({ redis, proxy })
  const refusedAt = performance.now()
  await sleep(1_000)
  const refused = since(refusedAt)
  await mend({ redis, proxy })
  const mendedAt = performance.now()
  await until('jobs are taken again', () => since(mendedAt).some(({ outcome }) => outcome === 'ok'), 30_000)
  const recoveredAt = since(mendedAt).find(({ outcome }) => outcome === 'ok')!
  await load.stop()
  const isExpected = ({ outcome, code }: Try) => outcome === 'ok' || codes.includes(code ?? '')
  const named = refused.filter(({ code }) => codes.includes(code ?? ''))
  const unexpected = since(causedAt).filter((one) => !isExpected(one))
  return {
    checks: [
      {
        what: `answers but 201 and ${codes.join(', ') || 'nothing else'}`,
        measured: unexpected.length,
        atMost: 0,
      },
      ...(codes.length > 0 ? [{ what: 'answers with that name', measured: named.length, atLeast: 1 }] : []),
      {
        what: 'first 201 after it was mended, ms',
        measured: recoveredAt.at + recoveredAt.ms - mendedAt,
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
