/**
 * The service as the Redis user of examples/redis-acl.conf: everything works, Redis denies no command, and
 * the rule contains no unused permission.
 */
import { FlowProducer } from 'bullmq'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { createKeyspace } from '../../../src/redis/keyspace.ts'
import { pruneQueues } from '../../../src/redis/scripts/queues/prune-queues.ts'
import { rememberQueues } from '../../../src/redis/scripts/queues/remember-queues.ts'
import { eventually } from '../../helpers/app.ts'
import { callsByCommand } from '../../helpers/streams.ts'
import { journey } from './journey.ts'
import { checkScripts } from './script-commands.ts'
import {
  aclLog,
  allowed,
  open,
  openReady,
  PASSWORD,
  post,
  type Server,
  startServer,
  startWatching,
} from './server.ts'
import { workJourney } from './worker-journey.ts'

/** Commands that MONITOR does not show. */
const HIDDEN = ['config|get', 'client|unblock']

/** As the service does when names have not been used for a day, or when there are too many. */
async function pruneKnownQueues(t: Test, { admin, tcp }: Server): Promise<void> {
  const keyspace = createKeyspace('bull')
  const key = keyspace.knownQueues
  const client = new Redis(tcp, { disableClientInfo: true })
  t.teardown(() => client.disconnect())
  const toCheck = (name: string) => ({
    name,
    base: keyspace.queueBase(name),
    subscription: keyspace.subscription(name),
  })
  await admin.call('ZADD', key, 1, 'old', 2, 'empty', 3, 'held', 4, 'also-old')
  await admin.lpush('bull:held:wait', '1')
  const known = await admin.zcard(key)
  const bounds = { maxNames: known, idleMs: 86_400_000, pageSize: 100 }
  const { displaced, due } = await rememberQueues(client, key, bounds, ['new'])
  t.same([displaced, due], [1, ['empty', 'held', 'also-old']])
  const checked = [toCheck('empty'), toCheck('held')]
  const pruned = await pruneQueues(client, key, { ...bounds, maxNames: known - 2 }, checked)
  t.match(pruned, { forgotten: 1, displaced: 1, known: known - 2, due: [] })
}

t.test('every route works over TCP, no command is denied, and no permission is unused', async (t) => {
  const server = await startServer(t)
  const { admin } = server
  const seen = await startWatching(t, admin)
  await admin.config('RESETSTAT')
  const app = await openReady(t, server.tcp)
  const atStart = await callsByCommand(admin)
  await journey(t, app, server)
  await workJourney(t, app, server)
  const durable = await openReady(t, server.tcp, { DURABILITY_REPLICAS: '1', DURABILITY_TIMEOUT: '50' })
  t.match(await post(durable, '/jobs', { queue: 'q', name: 'n' }), { body: { code: 'NOT_REPLICATED' } })
  await pruneKnownQueues(t, server)
  t.same(await aclLog(server), [])

  const { commands, scripts } = await seen()
  checkScripts(t, scripts)
  const calls = await callsByCommand(admin)
  // Only the service sends these. HELLO is counted before the test itself may send it.
  if (atStart['hello']) commands.add('hello')
  for (const command of HIDDEN) if (calls[command]) commands.add(command)
  // Redis 6 counts and shows subcommands under their command.
  if (/redis_version:6/.test(await admin.info('server'))) return
  t.same([...commands].sort(), [...allowed].sort())
})

t.test('every route works over the unix socket', async (t) => {
  const server = await startServer(t)
  const app = await openReady(t, server.unix)
  await journey(t, app, server)
  await workJourney(t, app, server)
  t.same(await aclLog(server), [])
  const list = String(await server.admin.call('CLIENT', 'LIST'))
  const sockets = list.split('\n').filter((line) => / name=sluice:/.test(line))
  t.equal(sockets.length, 4)
  for (const line of sockets) t.match(line, / user=sluice /)
})

t.test('unused commands are denied, and so is every key outside the prefix', async (t) => {
  const server = await startServer(t)
  const client = new Redis(server.tcp, { disableClientInfo: true })
  t.teardown(() => client.disconnect())
  await server.admin.set('elsewhere', 'secret')
  const denied: string[][] = [
    ...['elsewhere', 'bul:x', 'bullx', ''].map((key) => ['GET', key]),
    ['EVAL', "return redis.call('GET', 'elsewhere')", '0'],
    ['EVAL', "return redis.call('FLUSHALL')", '0'],
    ['XREAD', 'STREAMS', 'bull:q:events', 'elsewhere', '0', '0'],
    ...[
      'FLUSHALL',
      'FLUSHDB',
      'KEYS *',
      'SCAN 0',
      'DBSIZE',
      'SHUTDOWN',
      'MONITOR',
      'ACL LIST',
      'CLIENT LIST',
    ],
    // A native worker waits with this.
    'BZPOPMIN bull:q:marker 1',
    ...['CLIENT KILL TYPE normal', 'CONFIG SET maxmemory 1', 'SCRIPT FLUSH', 'SUBSCRIBE c'],
    ...['PUBLISH c m', 'REPLICAOF NO ONE', 'SELECT 1', 'RENAME bull:a bull:b', 'MIGRATE h 1 k 0 1'],
  ].map((command) => (typeof command === 'string' ? command.split(' ') : command))
  for (const [command, ...args] of denied) {
    await t.rejects(
      client.call(command!, ...args),
      /NOPERM|^ERR The user executing the script can't/,
      [command, ...args].join(' '),
    )
  }
  t.equal(await server.admin.get('elsewhere'), 'secret')
})

t.test('a child whose parent has another prefix can be completed if that prefix is allowed', async (t) => {
  const server = await startServer(t)
  await server.admin.call('ACL', 'SETUSER', 'sluice', '~other:*')
  const app = await openReady(t, server.tcp)
  const flows = new FlowProducer({ connection: server.connection })
  t.teardown(() => flows.close())
  const child = { name: 'c', queueName: 'children', prefix: 'bull' }
  await flows.add({
    name: 'p',
    queueName: 'parents',
    prefix: 'other',
    opts: { jobId: 'p' },
    children: [child],
  })
  const { jobs } = (await post(app, '/queues/children/leases', {})).body
  const items = [{ lease: jobs[0].lease, outcome: 'complete' }]
  t.equal((await post(app, '/leases/settle', { items })).status, 200)
  t.same(await server.admin.lrange('other:parents:wait', 0, -1), ['p'])
  t.same(await aclLog(server), [])
})

t.test(
  'without config|get everything works, but /health does not know how often Redis writes to disk',
  async (t) => {
    const server = await startServer(t)
    await server.admin.call('ACL', 'SETUSER', 'sluice', '-config|get')
    await server.admin.config('SET', 'appendonly', 'yes')
    const app = await openReady(t, server.tcp)
    t.equal((await post(app, '/jobs', { queue: 'q', name: 'n' })).status, 201)
    const health = await app.http.inject('/health/redis')
    t.equal(health.statusCode, 200)
    t.match(health.json(), { error: null, server: { durability: { mode: 'append-only file' } } })
  },
)

t.test('a wrong password causes 503, and the operator sees the reason', async (t) => {
  const server = await startServer(t)
  for (const url of [server.tcp, server.unix]) {
    const app = await open(t, url.replace(PASSWORD, 'hunter2'))
    const health = async () => (await app.http.inject('/health/redis')).body
    await eventually(async () => (await health()).includes('WRONGPASS'))
    t.notMatch(await health(), 'hunter2')
    t.match(await post(app, '/jobs', { queue: 'q', name: 'n' }), {
      status: 503,
      body: { outcome: 'not_executed' },
    })
    t.equal((await app.http.inject('/jobs/q:a')).statusCode, 503)
    t.equal((await app.http.inject('/health/ready')).statusCode, 503)
  }
})
