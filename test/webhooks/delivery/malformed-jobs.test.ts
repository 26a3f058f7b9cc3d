/** A malformed job fails alone: 20 jobs of which one is damaged, delivered to an endpoint. */
import { Queue } from 'bullmq'
import t from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { connectionTo } from '../../leases/client.ts'
import { damages } from '../../leases/malformed-jobs.ts'
import { startReceiver } from '../endpoint.ts'

const redis = await startRedis()
const { client } = redis
const app = await startApp(redis, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
const { prefix } = app
t.teardown(async () => {
  await app.http.close()
  await redis.stop()
})

const BAD = 'j7'
const ids = Array.from({ length: 20 }, (_, index) => `j${index}`)

for (const [index, damage] of damages.entries()) {
  t.test(`${damage.name}: the other 19 jobs are delivered, and it is ${damage.fate}`, async (t) => {
    const receiver = await startReceiver(t)
    const name = `q${index}`
    const queue = new Queue(name, { connection: connectionTo(redis), prefix })
    t.teardown(() => queue.close())
    await queue.addBulk(ids.map((jobId) => ({ name: 'n', data: { jobId }, opts: { jobId } })))
    await damage.apply(client, `${prefix}:${name}:${BAD}`)
    const began = performance.now()
    await app.http.inject({
      method: 'PUT',
      url: `/queues/${name}/subscription`,
      headers: { 'content-type': 'application/json' },
      payload: JSON.stringify({ url: receiver.url }),
    })
    const count = damage.fate === 'worked' ? 20 : 19
    await eventually(async () => (await client.zcard(`${prefix}:${name}:completed`)) === count, 2_000)
    t.ok(performance.now() - began < 2_000, `${Math.round(performance.now() - began)} ms`)
    t.equal(receiver.received.length, count, 'each of them once')
    if (damage.fate === 'failed')
      await eventually(async () => (await client.zscore(`${prefix}:${name}:failed`, BAD)) !== null)
    t.same(await client.lrange(`${prefix}:${name}:active`, 0, -1), [])
  })
}
