import t from 'tap'
import { isSupported, parseServerInfo, readServerInfo } from '../../../src/redis/connection/server-info.ts'
import { startRedis } from '../../helpers/redis.ts'

const info = (lines: Record<string, string | number>) =>
  ['# Server', ...Object.entries(lines).map(([name, value]) => `${name}:${value}`), ''].join('\r\n')

t.test('INFO is parsed into the fields that health reports', async (t) => {
  const text = info({
    redis_version: '7.2.4',
    role: 'slave',
    loading: 1,
    uptime_in_seconds: 12,
    connected_clients: 5,
    maxclients: 100,
    used_memory: 1_000,
    maxmemory: 2_000,
    maxmemory_policy: 'allkeys-lru',
    instantaneous_ops_per_sec: 7,
    rejected_connections: 3,
    connected_slaves: 2,
    aof_enabled: 1,
    executable: 'C:/redis:server',
  })
  t.match(parseServerInfo(text, 'always'), {
    version: '7.2.4',
    role: 'slave',
    loading: true,
    uptimeS: 12,
    connectedClients: 5,
    maxClients: 100,
    usedMemoryBytes: 1_000,
    maxMemoryBytes: 2_000,
    evictionPolicy: 'allkeys-lru',
    opsPerSecond: 7,
    rejectedConnections: 3,
    replicas: 2,
    durability: { mode: 'appendfsync always' },
  })
})

t.test('missing fields are unknown or 0', async (t) => {
  t.match(parseServerInfo('', undefined), {
    version: 'unknown',
    role: 'unknown',
    loading: false,
    maxClients: null,
    maxMemoryBytes: 0,
    evictionPolicy: 'unknown',
    durability: { mode: 'snapshots only' },
  })
})

t.test('the durability follows from the append-only file and how it is written', async (t) => {
  const durability = (aof: number, appendfsync?: string) =>
    parseServerInfo(info({ aof_enabled: aof }), appendfsync).durability
  t.equal(durability(1, 'always').mode, 'appendfsync always')
  t.equal(durability(1, 'everysec').mode, 'appendfsync everysec')
  t.equal(durability(1, 'no').mode, 'appendfsync no')
  t.equal(durability(1).mode, 'append-only file')
  t.equal(durability(1, 'sometimes').mode, 'append-only file')
  t.equal(durability(0, 'always').mode, 'snapshots only', 'appendfsync has no effect without the file')
  const all = [
    durability(1, 'always'),
    durability(1, 'everysec'),
    durability(1, 'no'),
    durability(1),
    durability(0),
  ]
  t.equal(new Set(all.map(({ meaning }) => meaning)).size, 5, 'each mode has its own meaning')
  t.match(durability(1, 'always').meaning, /survives/)
})

t.test('6.2 and later are supported', async (t) => {
  for (const version of ['6.2.0', '6.2', '6.10.1', '7.0.15', '10.0.0']) t.ok(isSupported(version), version)
  for (const version of ['6.0.16', '5.9.9', '2.8', 'unknown', '']) t.notOk(isSupported(version), version)
})

t.test('a real server without an append-only file has snapshots only', async (t) => {
  const redis = await startRedis(['--maxclients', '77', '--maxmemory', '100mb'])
  t.teardown(() => redis.stop())
  const server = await readServerInfo(redis.client)
  t.match(server, {
    version: /^\d+\.\d+\.\d+$/,
    role: 'master',
    loading: false,
    maxClients: 77,
    maxMemoryBytes: 104_857_600,
    evictionPolicy: 'noeviction',
    replicas: 0,
    rejectedConnections: 0,
    durability: { mode: 'snapshots only' },
  })
  t.ok(server.usedMemoryBytes > 100_000)
  t.ok(server.connectedClients >= 1)
  t.ok(isSupported(server.version))
})

t.test('a real server with one reports how it is written, if CONFIG is allowed', async (t) => {
  const redis = await startRedis(['--appendonly', 'yes', '--appendfsync', 'everysec'])
  t.teardown(() => redis.stop())
  const mode = async () => (await readServerInfo(redis.client)).durability.mode
  t.equal(await mode(), 'appendfsync everysec')
  await redis.client.config('SET', 'appendfsync', 'always')
  t.equal(await mode(), 'appendfsync always')
  // As on a managed service.
  await redis.client.call('ACL', 'SETUSER', 'default', '-config')
  t.equal(await mode(), 'append-only file')
})

t.test('an unreachable server rejects', async (t) => {
  const redis = await startRedis()
  await redis.stop()
  await t.rejects(readServerInfo(redis.client), { message: 'Connection is closed.' })
})
