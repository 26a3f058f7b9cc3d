import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdir, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { type EmbeddedRedis, startEmbeddedRedis } from '../../../src/redis/embedded/embedded-redis.ts'

interface Lock {
  owner: number
  server: number
}

async function start(t: Test, dataDir: string, log: string[] = []): Promise<EmbeddedRedis> {
  const path = process.env['PATH'] ?? ''
  const redis = await startEmbeddedRedis({ dataDir, cacheDir: '.redis', path, log: (line) => log.push(line) })
  t.teardown(() => redis.close())
  return redis
}

/** A folder whose path is short enough for a socket, which those of `t.testdir` are not. */
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
const readLock = async (dataDir: string) => JSON.parse(await readFile(lockFile(dataDir), 'utf8')) as Lock
const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )

/** The id of a process that has just ended. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' })
  await once(child, 'exit')
  return child.pid!
}

t.test('data survive a restart', async (t) => {
  const dataDir = join(await folder(t), 'made', 'when', 'needed')
  const first = await start(t, dataDir)
  t.match(first.version, /^\d+\.\d+/)
  await run(first.socket, 'SET', 'kept', 'yes')
  await first.close()
  await t.rejects(run(first.socket, 'PING'), 'nothing is left running')
  const second = await start(t, dataDir)
  t.equal(await run(second.socket, 'GET', 'kept'), 'yes')
})

t.test('every write is on disk before it is answered, and nothing is ever evicted', async (t) => {
  const { socket } = await start(t, await folder(t))
  for (const [name, value] of [
    ['appendonly', 'yes'],
    ['appendfsync', 'always'],
    ['maxmemory-policy', 'noeviction'],
  ]) {
    t.same(await run(socket, 'CONFIG', 'GET', name!), [name, value])
  }
})

t.test('only this user can reach it: a socket of mode 0700, no port', async (t) => {
  const dataDir = join(await folder(t), 'data')
  const { socket } = await start(t, dataDir)
  t.equal(socket, join(dataDir, 'redis.sock'))
  t.equal((await stat(socket)).mode & 0o777, 0o700)
  t.equal((await stat(dataDir)).mode & 0o777, 0o700)
  t.same(await run(socket, 'CONFIG', 'GET', 'port'), ['port', '0'])
})

t.test('a second one on the same folder is refused with a sentence, and the first goes on', async (t) => {
  const dataDir = await folder(t)
  const first = await start(t, dataDir)
  const refused = start(t, dataDir)
  await t.rejects(refused, {
    message: `${dataDir} is in use by another Sluice (process ${process.pid}). Stop it, or give this one its own DATA_DIR or a REDIS_URL.`,
  })
  t.equal(await run(first.socket, 'PING'), 'PONG')
})

t.test('a server left behind by a killed owner is taken over, with all it holds', async (t) => {
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
  await t.rejects(run(taken.socket, 'PING'), 'it ends with its new owner')
})

t.test('when the server died with its owner, a new one is started on the data', async (t) => {
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

t.test('a write that a kill cut off comes back neither at the next start nor at the one after', async (t) => {
  const dataDir = await folder(t)
  const kill = async () => {
    const { server } = JSON.parse(await readFile(join(dataDir, 'redis.lock'), 'utf8')) as Lock
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

t.test('a lock file that cannot be read counts as none', async (t) => {
  const dataDir = await folder(t)
  await writeFile(lockFile(dataDir), '{"owner":')
  const { socket } = await start(t, dataDir)
  t.equal(await run(socket, 'PING'), 'PONG')
})

t.test('a data folder too deep for a socket has it in a private folder of the temporary one', async (t) => {
  const dataDir = join(await folder(t), 'd'.repeat(100))
  await mkdir(dataDir)
  const { socket } = await start(t, dataDir)
  t.teardown(() => rm(dirname(socket), { recursive: true, force: true }))
  t.match(socket, /\/sluice-[0-9a-f]{16}\/redis\.sock$/)
  t.equal((await stat(dirname(socket))).mode & 0o777, 0o700)
  t.equal((await stat(socket)).mode & 0o777, 0o700)
  t.same(await run(socket, 'CONFIG', 'GET', 'dir'), ['dir', dataDir])
})

t.test('closing twice is closing once, and leaves no lock', async (t) => {
  const dataDir = await folder(t)
  const redis = await start(t, dataDir)
  t.ok(await exists(lockFile(dataDir)))
  t.equal(redis.close(), redis.close())
  await redis.close()
  t.notOk(await exists(lockFile(dataDir)))
})

t.test('a server that cannot start says where to look', async (t) => {
  const dataDir = await folder(t)
  const options = { dataDir, cacheDir: '.redis', path: process.env['PATH'] ?? '', log: () => {} }
  await t.rejects(startEmbeddedRedis({ ...options, args: ['--no-such-setting', '1'] }), {
    message: `redis-server ended with code 1; see ${join(dataDir, 'redis.log')}`,
  })
  t.match(await readFile(join(dataDir, 'redis.log'), 'utf8'), 'no-such-setting')
  t.notOk(await exists(lockFile(dataDir)))
})
