import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, chmod, mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { DataDirLock } from '../../../src/redis/embedded/data-dir-lock.ts'
import { type EmbeddedRedis, startEmbeddedRedis } from '../../../src/redis/embedded/embedded-redis.ts'

async function start(t: Test, dataDir: string, log: string[] = []): Promise<EmbeddedRedis> {
  const path = process.env['PATH'] ?? ''
  const redis = await startEmbeddedRedis({ dataDir, cacheDir: '.redis', path, log: (line) => log.push(line) })
  t.teardown(() => redis.close())
  return redis
}

/** A folder whose path is short enough for a socket. Those of `t.testdir` are not. */
async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'sluice-test-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

async function run(socket: string, command: string, ...args: string[]): Promise<unknown> {
  const client = new Redis({ path: socket, retryStrategy: () => null, maxRetriesPerRequest: 0 })
  client.on('error', () => {})
  try {
    return await client.call(command, ...args)
  } finally {
    client.disconnect()
  }
}

const lockFile = (dataDir: string) => join(dataDir, 'redis.lock')
const readLock = async (dataDir: string) =>
  JSON.parse(await readFile(lockFile(dataDir), 'utf8')) as DataDirLock
const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )

/** The id of a process that has ended. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' })
  await once(child, 'exit')
  return child.pid!
}

t.test('data survives a restart', async (t) => {
  const dataDir = join(await folder(t), 'made', 'when', 'needed')
  const first = await start(t, dataDir)
  t.match(first.version, /^\d+\.\d+/)
  await run(first.socket, 'SET', 'kept', 'yes')
  await first.close()
  await t.rejects(run(first.socket, 'PING'), 'no server is left running')
  const second = await start(t, dataDir)
  t.equal(await run(second.socket, 'GET', 'kept'), 'yes')
})

t.test('every write is on disk before its reply, and nothing is ever evicted', async (t) => {
  const { socket } = await start(t, await folder(t))
  for (const [name, value] of [
    ['appendonly', 'yes'],
    ['appendfsync', 'always'],
    ['maxmemory-policy', 'noeviction'],
  ]) {
    t.same(await run(socket, 'CONFIG', 'GET', name!), [name, value])
  }
})

t.test('only this user can connect: a socket of mode 0700, no port', async (t) => {
  const dataDir = join(await folder(t), 'data')
  const { socket } = await start(t, dataDir)
  t.equal(socket, join(dataDir, 'redis.sock'))
  t.equal((await stat(socket)).mode & 0o777, 0o700)
  t.equal((await stat(dataDir)).mode & 0o777, 0o700)
  t.same(await run(socket, 'CONFIG', 'GET', 'port'), ['port', '0'])
})

t.test(
  'a folder that others may read is closed to them, and with it what a killed service left in it',
  async (t) => {
    const dataDir = join(await folder(t), 'data')
    await mkdir(join(dataDir, 'appendonlydir'), { recursive: true, mode: 0o755 })
    for (const name of ['redis.log', 'secret', 'appendonly.aof'])
      await writeFile(join(dataDir, name), 'x'.repeat(32))
    await chmod(dataDir, 0o755)
    await rm(join(dataDir, 'appendonly.aof'))
    const log: string[] = []
    const { socket } = await start(t, dataDir, log)
    t.equal(await run(socket, 'SET', 'k', 'v'), 'OK')
    t.equal((await stat(dataDir)).mode & 0o777, 0o700)
    t.same(log, [])
  },
)

t.test(
  'in a folder that holds other files, only those of the service are closed, with a warning',
  async (t) => {
    const dataDir = await folder(t)
    await chmod(dataDir, 0o755)
    for (const name of ['secret', 'redis.log', 'notes.txt', 'keys.json']) {
      await writeFile(join(dataDir, name), 'x'.repeat(32))
      await chmod(join(dataDir, name), 0o644)
    }
    const log: string[] = []
    const { socket } = await start(t, dataDir, log)
    t.equal(await run(socket, 'SET', 'k', 'v'), 'OK')
    t.match(log, [/^Other users may list .*: use a DATA_DIR of its own, or run chmod 700 /])
    const mode = async (name: string) => (await stat(join(dataDir, name))).mode & 0o777
    for (const name of ['secret', 'redis.log', 'redis.lock']) t.equal(await mode(name), 0o600, name)
    t.equal(await mode('appendonlydir'), 0o700, 'other users reach no file in it')
    t.equal(await mode(''), 0o755)
    for (const name of ['notes.txt', 'keys.json']) t.equal(await mode(name), 0o644, name)
  },
)

t.test('a second service on the same folder is refused, and the first keeps running', async (t) => {
  const dataDir = await folder(t)
  const first = await start(t, dataDir)
  const refused = start(t, dataDir)
  await t.rejects(refused, {
    message: `${dataDir} is in use by another Sluice (process ${process.pid}). Stop it, or give this one its own DATA_DIR or a REDIS_URL.`,
  })
  t.equal(await run(first.socket, 'PING'), 'PONG')
})

t.test('the server of a killed owner is taken over with its data', async (t) => {
  const dataDir = await folder(t)
  const log: string[] = []
  const left = await start(t, dataDir)
  await run(left.socket, 'SET', 'kept', 'yes')
  const { owner, server } = await readLock(dataDir)
  t.equal(owner, process.pid)
  await writeFile(lockFile(dataDir), JSON.stringify({ owner: await deadPid(), server }))
  const taken = await start(t, dataDir, log)
  t.match(log, [new RegExp(`^Taking over the redis-server \\(process ${server}\\)`)])
  t.same(await readLock(dataDir), { owner: process.pid, server })
  t.equal(await run(taken.socket, 'GET', 'kept'), 'yes')
  await taken.close()
  await t.rejects(run(taken.socket, 'PING'), 'the server ends with its new owner')
})

t.test('when the server died with its owner, a new one starts with the data', async (t) => {
  const dataDir = await folder(t)
  const log: string[] = []
  const died = await start(t, dataDir)
  await run(died.socket, 'SET', 'kept', 'yes')
  const { server } = await readLock(dataDir)
  process.kill(server, 'SIGKILL')
  await died.close()
  t.ok(await exists(died.socket), 'a killed server leaves its socket behind')
  await writeFile(lockFile(dataDir), JSON.stringify({ owner: await deadPid(), server }))
  const { socket } = await start(t, dataDir, log)
  t.same(log, [])
  t.equal(await run(socket, 'GET', 'kept'), 'yes')
  t.not((await readLock(dataDir)).server, server)
})

t.test('a write that a kill cut off reappears neither at the next start nor at the one after', async (t) => {
  const dataDir = await folder(t)
  const kill = async () => {
    const { server } = JSON.parse(await readFile(join(dataDir, 'redis.lock'), 'utf8')) as DataDirLock
    process.kill(server, 'SIGKILL')
    await rm(join(dataDir, 'redis.lock'))
  }
  const write = (job: string) =>
    `redis.call('SET', 'job:${job}', 1) redis.call('LPUSH', 'wait', '${job}') redis.call('SET', 'record', '${job}')`
  const first = await start(t, dataDir)
  await run(first.socket, 'SET', 'before', '1')
  await run(first.socket, 'EVAL', write('cut'), '0')
  await kill()
  const file = join(dataDir, 'appendonlydir', 'appendonly.aof.1.incr.aof')
  const text = await readFile(file, 'latin1')
  await truncate(file, text.indexOf('record') + 2)
  const second = await start(t, dataDir)
  t.same(await run(second.socket, 'KEYS', '*'), ['before'])
  await run(second.socket, 'EVAL', write('whole'), '0')
  await kill()
  const third = await start(t, dataDir)
  t.same(await run(third.socket, 'LRANGE', 'wait', '0', '-1'), ['whole'])
  t.equal(await run(third.socket, 'GET', 'record'), 'whole')
})

t.test('an unreadable lock file is ignored', async (t) => {
  const dataDir = await folder(t)
  await writeFile(lockFile(dataDir), '{"owner":')
  const { socket } = await start(t, dataDir)
  t.equal(await run(socket, 'PING'), 'PONG')
})

t.test('for a data folder with too long a path, the socket is in a private temporary folder', async (t) => {
  const dataDir = join(await folder(t), 'd'.repeat(100))
  await mkdir(dataDir)
  const { socket } = await start(t, dataDir)
  t.teardown(() => rm(dirname(socket), { recursive: true, force: true }))
  t.match(socket, /\/sluice-[0-9a-f]{16}\/redis\.sock$/)
  t.equal((await stat(dirname(socket))).mode & 0o777, 0o700)
  t.equal((await stat(socket)).mode & 0o777, 0o700)
  t.same(await run(socket, 'CONFIG', 'GET', 'dir'), ['dir', dataDir])
})

t.test('close is idempotent and removes the lock', async (t) => {
  const dataDir = await folder(t)
  const redis = await start(t, dataDir)
  t.ok(await exists(lockFile(dataDir)))
  t.equal(redis.close(), redis.close())
  await redis.close()
  t.notOk(await exists(lockFile(dataDir)))
})

t.test('a server that cannot start is reported with its log file', async (t) => {
  const dataDir = await folder(t)
  const options = { dataDir, cacheDir: '.redis', path: process.env['PATH'] ?? '', log: () => {} }
  await t.rejects(startEmbeddedRedis({ ...options, args: ['--no-such-setting', '1'] }), {
    message: `redis-server ended with code 1; see ${join(dataDir, 'redis.log')}`,
  })
  t.match(await readFile(join(dataDir, 'redis.log'), 'utf8'), 'no-such-setting')
  t.notOk(await exists(lockFile(dataDir)))
})
