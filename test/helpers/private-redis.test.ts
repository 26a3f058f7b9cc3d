/** What a test or benchmark starts ends with it, also if it is killed. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { isAlive } from '../../src/redis/embedded/data-dir-lock.ts'
import { eventually } from './app.ts'

const MODULE = new URL('../../load/private-redis.ts', import.meta.url).href

/** Runs `then` in a process of its own that has started a private redis-server. */
async function start(t: Test, then: string) {
  const program = `
    import { startRedis } from '${MODULE}'
    const redis = await startRedis()
    const [, pid] = /process_id:(\\d+)/.exec(await redis.client.info('server'))
    console.log(JSON.stringify({ pid: Number(pid), socket: redis.socket }))
    ${then}`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  t.teardown(() => child.kill('SIGKILL'))
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  const { pid, socket } = JSON.parse(line) as { pid: number; socket: string }
  t.teardown(() => isAlive(pid) && process.kill(pid, 'SIGKILL'))
  return { child, exited, pid, folder: dirname(socket) }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
  t.test(`a redis-server ends, and its folder is removed, when its process ends by ${signal}`, async (t) => {
    const { child, exited, pid, folder } = await start(t, 'setInterval(() => {}, 1_000)')
    t.ok(isAlive(pid))
    child.kill(signal)
    await exited
    await eventually(() => !isAlive(pid) && !existsSync(folder))
  })
}

t.test('a redis-server ends when its process fails', async (t) => {
  const { exited, pid, folder } = await start(t, 'process.exit(1)')
  t.same(await exited, [1, null])
  await eventually(() => !isAlive(pid) && !existsSync(folder))
})

t.test('a process that has stopped its redis-server ends by itself', async (t) => {
  const { exited, pid, folder } = await start(t, 'await redis.stop()')
  t.same(await exited, [0, null])
  t.notOk(isAlive(pid))
  t.notOk(existsSync(folder))
})
