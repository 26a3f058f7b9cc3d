/** Who may use a data folder. No Redis: the test says whether a server is listening. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  acquireLock,
  type DataDirLock,
  recordServer,
  releaseLock,
} from '../../../src/redis/embedded/data-dir-lock.ts'

/** No process has this id: it is above the limit of every system. */
const DEAD = 2 ** 30
const ALIVE = process.ppid

async function acquire(t: Test, previous: DataDirLock | undefined, isListening = false) {
  const lockFile = join(t.testdir({}), 'redis.lock')
  if (previous) await writeFile(lockFile, JSON.stringify(previous))
  const found = await acquireLock(lockFile, async () => isListening)
  return { found, lockFile, lock: JSON.parse(await readFile(lockFile, 'utf8')) }
}

t.test('a free folder is locked by this process, without a server', async (t) => {
  const { found, lockFile, lock } = await acquire(t, undefined)
  t.equal(found, undefined)
  t.same(lock, { owner: process.pid, server: 0 })
  await recordServer(lockFile, 7)
  t.same(JSON.parse(await readFile(lockFile, 'utf8')), { owner: process.pid, server: 7 })
  await releaseLock(lockFile)
  await releaseLock(lockFile)
  await t.rejects(readFile(lockFile), { code: 'ENOENT' })
})

t.test('the lock of a dead owner is returned and replaced', async (t) => {
  for (const server of [0, DEAD, ALIVE]) {
    const { found, lock } = await acquire(t, { owner: DEAD, server }, true)
    t.same(found, { owner: DEAD, server })
    t.same(lock, { owner: process.pid, server: 0 })
  }
})

t.test('the folder of a running owner is in use, whatever its server does', async (t) => {
  for (const server of [0, DEAD, ALIVE]) {
    const message = new RegExp(`is in use by another Sluice \\(process ${ALIVE}\\)\\. Stop it, or give`)
    await t.rejects(acquire(t, { owner: ALIVE, server }), { message })
  }
})

t.test('an owner with our own process id counts as running only if its server does', async (t) => {
  const owner = process.pid
  await t.rejects(acquire(t, { owner, server: 0 }), /is in use/, 'its server is starting')
  await t.rejects(acquire(t, { owner, server: ALIVE }, true), /is in use/)
  t.same((await acquire(t, { owner, server: ALIVE }, false)).found, { owner, server: ALIVE })
  t.same((await acquire(t, { owner, server: DEAD }, true)).found, { owner, server: DEAD })
})
