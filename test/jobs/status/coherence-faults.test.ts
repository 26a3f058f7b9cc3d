/**
 * What is served from memory while events do not arrive or Redis is away: nothing older than the bound, never without
 * saying so, and everything correct again as soon as Redis recovers. Every fault is a real one.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { eventsSocket } from '../../helpers/streams.ts'

async function open(t: Test, settings: Record<string, string> = {}) {
  const redis = await startRedis()
  const app = await startApp(redis, settings)
  const queue = new Queue('q', { connection: redis.client, prefix: app.prefix })
  t.teardown(async () => {
    await app.http.close()
    await redis.stop()
  })
  const pid = Number(/process_id:(\d+)/.exec(await redis.client.info('server'))?.[1])
  const read = async (headers: Record<string, string> = {}) => {
    const { statusCode, headers: sent, body } = await app.http.inject({ url: '/jobs/q:a', headers })
    return { status: statusCode, cache: `${sent['cache-status']}`, state: JSON.parse(body).state as string }
  }
  await queue.add('n', {}, { jobId: 'a' })
  await eventually(async () => /hit; ttl=\d+$/.test((await read()).cache))
  const events = async () => (await app.http.inject('/health/redis')).json().events
  return { redis, app, queue, pid, read, events }
}

t.test('a lost events connection recovers at once, and no change of that moment is missed', async (t) => {
  const { redis, queue, read, events } = await open(t)
  for (let round = 0; round < 5; round++) {
    const socket = await eventsSocket(redis.client)
    await Promise.all([
      redis.client.call('CLIENT', 'KILL', 'ID', `${socket}`),
      (await queue.getJob('a'))!.updateProgress(round),
    ])
    await eventually(async () => {
      const { status } = await events()
      return status === 'live' && (await eventsSocket(redis.client)) !== socket
    })
    t.equal((await read()).status, 200)
    await eventually(async () => /hit; ttl=\d+$/.test((await read()).cache))
  }
  await queue.remove('a')
  await eventually(async () => (await read()).status === 404, 600)
})

t.test(
  'without events nothing is served for longer than a second, and the response is marked as degraded',
  async (t) => {
    const { redis, queue, read } = await open(t)
    // Without XREAD the service receives no events; every other command works.
    await redis.client.call('ACL', 'SETUSER', 'default', '-xread')
    await redis.client.call('CLIENT', 'KILL', 'ID', `${await eventsSocket(redis.client)}`)
    await eventually(async () => (await read()).cache.includes('detail=degraded'))
    t.equal((await read()).status, 200)
    await queue.remove('a')
    const removedAt = performance.now()
    await eventually(async () => (await read()).status === 404)
    t.ok(performance.now() - removedAt < 1_000 + 500)
    await queue.add('n', {}, { jobId: 'a' })
    await eventually(async () => (await read()).status === 200, 1_500)
    await redis.client.call('ACL', 'SETUSER', 'default', '+xread')
    await eventually(async () => /hit; ttl=\d+$/.test((await read()).cache), 15_000)
  },
)

t.test(
  'while Redis is frozen entries are fresh for a second and then marked as stale, and it recovers',
  async (t) => {
    const { pid, queue, read, events } = await open(t, { REDIS_COMMAND_TIMEOUT: '300' })
    process.kill(pid, 'SIGSTOP')
    t.teardown(() => process.kill(pid, 'SIGCONT'))
    t.match(await read(), { status: 200, cache: /hit/ }, 'still in memory')
    await eventually(async () => (await events()).status === 'degraded', 5_000)
    await sleep(1_000)
    t.match(await read(), { status: 200, cache: /fwd=stale; detail=redis-unavailable/ })
    process.kill(pid, 'SIGCONT')
    await queue.remove('a')
    await eventually(async () => (await read()).status === 404, 5_000)
    await eventually(async () => (await events()).status !== 'degraded', 10_000)
  },
)

t.test('events that were trimmed before they were read invalidate the entries', async (t) => {
  const { redis, app, queue, read, events } = await open(t)
  const gapsBefore = (await events()).gaps
  const socket = await eventsSocket(redis.client)
  // In one transaction, so that the reader cannot reconnect in between.
  await redis.client
    .multi()
    .call('CLIENT', 'KILL', 'ID', `${socket}`)
    .del(`${app.prefix}:q:a`)
    .lrem(`${app.prefix}:q:wait`, 0, 'a')
    .xadd(`${app.prefix}:q:events`, '*', 'event', 'removed', 'jobId', 'a')
    .xtrim(`${app.prefix}:q:events`, 'MAXLEN', 0)
    .exec()
  t.equal(await queue.getJob('a'), undefined)
  await eventually(async () => (await read()).status === 404, 5_000)
  await eventually(async () => (await events()).gaps > gapsBefore, 5_000)
})

t.test('a key that is not a stream degrades its own queue only', async (t) => {
  const { redis, app, read } = await open(t)
  const other = new Queue('other', { connection: redis.client, prefix: app.prefix })
  await other.add('n', {}, { jobId: 'a' })
  await app.http.inject('/jobs/other:a')
  await redis.client.set(`${app.prefix}:q:events`, 'not a stream')
  await eventually(async () => (await read()).cache.includes('degraded'), 8_000)
  await other.remove('a')
  await eventually(async () => (await app.http.inject('/jobs/other:a')).statusCode === 404, 3_000)
  t.equal((await read()).status, 200)
})
