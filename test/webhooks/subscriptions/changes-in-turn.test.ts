/** Changes of one subscription at the same time. */
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { createChangesInTurn } from '../../../src/webhooks/subscriptions/changes-in-turn.ts'
import { startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

t.test('a hundred changes of one subscription at once are all made', async (t) => {
  const app = await startApp(redis, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
  t.teardown(() => app.http.close())
  const url = '/queues/q/subscription'
  const put = (concurrency: number) =>
    app.http.inject({ method: 'PUT', url, payload: { url: 'http://127.0.0.1:9/', concurrency } })
  const created = await put(1)
  t.equal(created.statusCode, 201)
  const revisions = new Set<string>()
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, index) =>
      index % 2 === 0
        ? put(index + 1)
        : app.http.inject({ method: 'POST', url: `${url}/secrets`, payload: {} }),
    ),
  )
  t.same(
    answers.map(({ statusCode }) => statusCode),
    answers.map((_, index) => (index % 2 === 0 ? 200 : 201)),
  )
  for (const answer of answers) revisions.add(answer.json().secret ?? '')
  t.equal(revisions.size, 51, 'each rotation has a secret of its own')
  // The checks of the URLs run at the same time, so any of the requests may have been the last to change it.
  t.equal((await app.http.inject(url)).json().concurrency % 2, 1)
  const removals = await Promise.all(
    Array.from({ length: 10 }, () => app.http.inject({ method: 'DELETE', url })),
  )
  t.same(
    removals.map(({ statusCode }) => statusCode),
    [204, ...Array(9).fill(404)],
  )
})

t.test('a change that hangs delays those of its own queue only, and not for ever', async (t) => {
  const inTurn = createChangesInTurn(50)
  const order: string[] = []
  let release = () => {}
  const hanging = inTurn('a', () => new Promise<void>((resolve) => (release = resolve)))
  const late = inTurn('a', async () => order.push('late'))
  await inTurn('b', async () => order.push('other queue'))
  await sleep(60)
  release()
  await hanging
  await t.rejects(late, { code: 'OVERLOADED' })
  await inTurn('a', async () => order.push('next'))
  t.same(order, ['other queue', 'next'])
})

t.test('changes are made in the order they were asked for, however long each takes', async (t) => {
  const inTurn = createChangesInTurn()
  const order: number[] = []
  const change = (ms: number) => inTurn('a', () => sleep(ms).then(() => order.push(ms)))
  await Promise.all([20, 5, 10, 0].map(change))
  t.same(order, [20, 5, 10, 0])
})

t.test('a change that fails does not stop the next', async (t) => {
  const inTurn = createChangesInTurn()
  const failed = inTurn('a', () => Promise.reject(new Error('refused')))
  const next = inTurn('a', async () => 'made')
  await t.rejects(failed, { message: 'refused' })
  t.equal(await next, 'made')
})
