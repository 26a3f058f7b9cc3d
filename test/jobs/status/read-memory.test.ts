/** The service in a process with a small heap, under the reads that once ended it: it stays up, and no answer is large. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { createServer } from 'node:net'
import t from 'tap'
import { eventually } from '../../helpers/app.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const { client } = redis

const MAX_ANSWER_BYTES = 8_388_608
const prefix = uniquePrefix()
const agent = new Agent({ keepAlive: true })
t.teardown(() => agent.destroy())

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  return port
}

interface Answer {
  status: number
  bytes: number
}

/** Reads the response without keeping it. */
function get(port: number, path: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request({ port, path, agent }, (response) => {
      let bytes = 0
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length
      })
      response.on('end', () => resolve({ status: response.statusCode!, bytes }))
    })
      .on('error', reject)
      .end()
  })
}

async function peakMemory({ pid }: ChildProcess): Promise<number> {
  return Number(/VmHWM:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}

async function store(key: string, fields: Record<string, string>): Promise<void> {
  const job = {
    name: 'n',
    opts: '{}',
    data: '{}',
    timestamp: 1_790_000_000_000,
    finishedOn: 1_790_000_000_001,
  }
  await client.hset(`${prefix}:q:${key}`, { ...job, ...fields })
  await client.zadd(`${prefix}:q:completed`, 1_790_000_000_001, key)
}

async function startService(): Promise<{ port: number; child: ChildProcess }> {
  const port = await freePort()
  const child = spawn(process.execPath, ['--max-old-space-size=256', '--import=tsx', 'src/server.ts'], {
    env: {
      PATH: process.env['PATH'],
      NODE_ENV: 'test',
      PORT: `${port}`,
      HOST: '127.0.0.1',
      REDIS_URL: `unix://${redis.socket}`,
      QUEUE_PREFIX: prefix,
      LOG_LEVEL: 'silent',
      MAX_EVENT_LOOP_DELAY: '0',
      API_KEYS_FILE: '/nowhere/keys.json',
    },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  await eventually(async () => {
    if (child.exitCode !== null) throw new Error(`The service exited with ${child.exitCode}`)
    return (await get(port, '/health/ready').catch(() => undefined))?.status === 200
  }, 60_000)
  return { port, child }
}

t.test('amplified reads, large pages and large logs end neither the process nor the bounds', async (t) => {
  const megabyte = JSON.stringify('x'.repeat(1_000_000))
  await store('one', { data: megabyte })
  for (let i = 0; i < 200; i++) await store(`k${i}`, { returnvalue: megabyte })
  await store('logged', {})
  const line = 'y'.repeat(65_000)
  for (let i = 0; i < 1_000; i += 50) await client.rpush(`${prefix}:q:logged:logs`, ...Array(50).fill(line))
  const { port, child } = await startService()
  const ids = Array.from({ length: 200 }, (_, i) => `q:k${i}`)
  const paths = [
    `/jobs?include=data&ids=${'q:one,'.repeat(199)}q:one`,
    `/jobs?ids=${ids}`,
    '/jobs?queue=q&limit=200',
    '/jobs/q:logged?include=logs',
  ]
  const before = await peakMemory(child)
  for (const [i, path] of paths.entries()) {
    const answers = await Promise.all(Array.from({ length: i === 0 ? 24 : 8 }, () => get(port, path)))
    const what = path.slice(0, 20)
    t.ok(
      answers.every(({ status }) => status === 200 || status === 503),
      `${what} is answered`,
    )
    t.ok(
      answers.some(({ status, bytes }) => status === 200 && bytes > 900_000),
      `${what} holds what fits`,
    )
    const largest = Math.max(...answers.map(({ bytes }) => bytes))
    t.ok(largest < MAX_ANSWER_BYTES + 250_000, `${what} is ${largest} bytes`)
  }
  const mixed = await Promise.all(paths.flatMap((path) => Array.from({ length: 4 }, () => get(port, path))))
  t.ok(mixed.every(({ status }) => status === 200 || status === 503))
  t.equal(child.exitCode, null, 'the process is up')
  t.equal((await get(port, '/jobs/q:k7')).status, 200)
  const grown = (await peakMemory(child)) - before
  t.ok(grown < 400_000_000, `${Math.round(grown / 1e6)} MB`)
  t.comment(`peak memory grew by ${Math.round(grown / 1e6)} MB`)
})
