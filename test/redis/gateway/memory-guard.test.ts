/** Near maxmemory new jobs are refused until a worker has drained the queue. */
import { Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const MiB = 1_048_576

async function open(t: Test, args: string[] = [], settings: Record<string, string> = {}) {
  const redis = await startRedis(args)
  const app = await startApp(redis, settings)
  t.teardown(async () => {
    await app.http.close()
    await redis.stop()
  })
  return { redis, app }
}

async function post(app: TestApp, data: unknown = {}) {
  const response = await app.http.inject({
    method: 'POST',
    url: '/jobs',
    headers: { 'content-type': 'application/json' },
    payload: JSON.stringify({ queue: 'q', name: 'n', data, opts: { removeOnComplete: true } }),
  })
  return { status: response.statusCode, headers: response.headers, body: response.json() }
}

t.test(
  'at 80 % new jobs are refused, a worker drains the queue without errors, and jobs are accepted again',
  async (t) => {
    const { redis, app } = await open(t, ['--maxmemory', `${24 * MiB}`])
    const data = 'x'.repeat(200_000)
    let stored = 0
    const fill = async () => {
      const { status, body } = await post(app, data)
      if (status === 201) stored++
      else t.match(body, { code: 'REDIS_FULL', outcome: 'not_executed' })
      return status === 503
    }
    await eventually(fill, 30_000)
    const refused = await post(app)
    t.match(refused.body, {
      code: 'REDIS_FULL',
      outcome: 'not_executed',
      retryable: true,
      detail: /accepts new jobs only below 80 %/,
    })
    t.equal(refused.headers['retry-after'], '5')
    const used = Number(/^used_memory:(\d+)/m.exec(await redis.client.info('memory'))![1])
    t.ok(used >= 0.8 * 24 * MiB && used < 0.95 * 24 * MiB, `${Math.round(used / MiB)} MiB`)
    t.equal((await app.http.inject('/jobs?queue=q&limit=1')).statusCode, 200, 'reads still work')

    const errors: string[] = []
    let done = 0
    const connection = { path: redis.socket, maxRetriesPerRequest: null }
    const worker = new Worker('q', async () => void done++, {
      connection,
      prefix: app.prefix,
      concurrency: 5,
    })
    worker.on('error', (error) => errors.push(error.message))
    t.teardown(() => worker.close())
    await eventually(() => done === stored, 30_000)
    t.same(errors, [])
    await eventually(async () => (await post(app)).status === 201, 5_000)
  },
)

t.test('a burst between two readings is counted: Redis itself never runs out of memory', async (t) => {
  const { redis, app } = await open(t, ['--maxmemory', `${40 * MiB}`])
  await post(app)
  await eventually(async () => (await app.http.inject('/stats')).json().commandsSent.memoryInfo >= 1)
  const data = 'x'.repeat(100_000)
  const responses = await Promise.all(Array.from({ length: 800 }, () => post(app, data)))
  const refused = responses.filter(({ status }) => status === 503)
  t.ok(refused.length > 0)
  for (const { body } of refused)
    if (!/accepts new jobs only below 80 %/.test(body.detail)) t.fail(body.detail)
  const used = Number(/^used_memory:(\d+)/m.exec(await redis.client.info('memory'))![1])
  t.ok(used < 0.95 * 40 * MiB, `${Math.round(used / MiB)} MiB`)
})

t.test('REDIS_MEMORY_WATERMARK=0 leaves the limit to Redis', async (t) => {
  const { app } = await open(t, ['--maxmemory', `${4 * MiB}`], { REDIS_MEMORY_WATERMARK: '0' })
  let refused: Awaited<ReturnType<typeof post>> | undefined
  await eventually(async () => {
    refused = await post(app, 'x'.repeat(100_000))
    return refused.status === 503
  }, 30_000)
  t.match(refused?.body, { code: 'REDIS_FULL', detail: /Redis is out of memory/ })
})

t.test('without maxmemory no job is refused, and the memory is read at most once a second', async (t) => {
  const { app } = await open(t)
  for (let round = 0; round < 200; round++) t.equal((await post(app)).status, 201)
  const { commandsSent } = (await app.http.inject('/stats')).json()
  t.ok(commandsSent.memoryInfo >= 1 && commandsSent.memoryInfo <= 5, `${commandsSent.memoryInfo}`)
})
