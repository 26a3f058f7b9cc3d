/** A thousand queues share the existing connections. */
import t from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

async function commandsOf(): Promise<number> {
  return Number(/total_commands_processed:(\d+)/.exec(await redis.client.info('stats'))?.[1])
}

t.test('a thousand queues open no further connection, and one request may name them all', async (t) => {
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  const jobs = Array.from({ length: 1_000 }, (_, i) => ({ queue: `queue-${i}`, name: 'n' }))
  const post = () =>
    app.http.inject({
      method: 'POST',
      url: '/jobs/batch',
      headers: { 'content-type': 'application/json' },
      payload: JSON.stringify({ jobs }),
    })
  const clients = async () => Number(/connected_clients:(\d+)/.exec(await redis.client.info('clients'))?.[1])
  const before = await clients()
  t.equal((await post()).statusCode, 201)
  const sent = async () => (await app.http.inject('/stats')).json()
  await eventually(async () => (await redis.client.zcard(`${app.prefix}::sluice:known-queues`)) === 1_000)
  t.equal((await post()).statusCode, 201)
  t.equal(await clients(), before)
  t.match(await sent(), { openQueues: 1_000, commandsSent: { enqueue: 2_000 }, semaphore: { refused: 0 } })
  t.ok((await sent()).commandsSent.rememberQueue <= 40, 'their names are written once, many at a time')
  const health = (await app.http.inject('/health')).json()
  t.equal(health.queuesKnown, 1_000)
  t.equal(Object.keys(health.queues).length, 50, 'health lists at most 50')
})

t.test('an idle service sends no commands', async (t) => {
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  for (let i = 0; i < 50; i++) {
    const payload = JSON.stringify({ queue: `idle-${i}`, name: 'n' })
    await app.http.inject({
      method: 'POST',
      url: '/jobs',
      headers: { 'content-type': 'application/json' },
      payload,
    })
  }
  await eventually(async () => (await redis.client.zcard(`${app.prefix}::sluice:known-queues`)) === 50)
  const before = await commandsOf()
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  // INFO itself is one.
  t.equal((await commandsOf()) - before, 1)
})
