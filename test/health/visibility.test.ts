/** No document of the health routes contains a name or an error text that belongs to another tenant. */
import { writeFile } from 'node:fs/promises'
import t from 'tap'
import { type Access, anonymous, unauthenticated } from '../../src/auth/access.ts'
import type { Advice } from '../../src/feature.ts'
import { adviceFor, ownOf, queuesFor, seenBy, textFor } from '../../src/health/visibility.ts'
import type { JobCounts } from '../../src/redis/scripts/queues/count-queues.ts'
import { eventually } from '../helpers/app.ts'
import { startAppWithKeys } from '../helpers/keys.ts'
import { startRedis } from '../helpers/redis.ts'

const limited = (...queues: string[]): Access => ({
  ...anonymous,
  keyId: 'mine',
  canAccessQueue: (queue) => queues.includes(queue),
  coversAllQueues: false,
})
const counts = (waiting: number) => ({ waiting }) as JobCounts

t.test(
  'another tenant’s queues, keys, errors and addresses appear in no health document of a limited key',
  async (t) => {
    const redis = await startRedis()
    t.teardown(() => redis.stop())
    const work = ['enqueue', 'read', 'work', 'manage'] as const
    const { app, secrets, path } = await startAppWithKeys(
      t,
      redis,
      {
        'operator-of-all': { scopes: [...work] },
        'tenant-theirs': { scopes: [...work], queues: ['theirs', 'theirs-*'] },
        'tenant-mine': { scopes: [...work], queues: ['mine', '__proto__'] },
      },
      { HEALTH_TTL: '0', WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', ENQUEUE_BATCH_DELAY: '300' },
    )
    const call = async (
      id: keyof typeof secrets | undefined,
      url: string,
      payload?: object,
      method = 'POST',
    ) => {
      const headers = id === undefined ? {} : { authorization: `Bearer ${secrets[id]}` }
      const response = await app.http.inject({
        method: (payload ? method : 'GET') as 'GET',
        url,
        headers,
        ...(payload && { payload }),
      })
      return response
    }
    const subscription = { url: 'http://127.0.0.1:9/theirs-hook' }
    t.equal(
      (await call('tenant-theirs', '/queues/theirs-hooked/subscription', subscription, 'PUT')).statusCode,
      201,
    )
    const enqueued = [
      call('tenant-theirs', '/jobs', { queue: 'theirs', name: 'n' }),
      call('tenant-theirs', '/jobs', { queue: 'theirs-damaged', name: 'n' }),
      call('tenant-mine', '/jobs', { queue: 'mine', name: 'n' }),
      call('tenant-mine', '/jobs', { queue: '__proto__', name: 'n' }),
    ]
    const documents = ['/health', '/health/redis', '/health/ready', '/health/live', '/stats']
    const check = async () => {
      for (const id of ['tenant-mine', undefined] as const) {
        for (const url of documents) {
          const { body } = await call(id, url)
          t.notMatch(body, /theirs|operator-of-all|keys\.json|sluice-keys|WRONGTYPE/, `${url} of ${id}`)
        }
      }
    }
    // While the batches are open, their queues are in the stats.
    await check()
    for (const response of await Promise.all(enqueued)) t.equal(response.statusCode, 201)
    await redis.client.set(`${app.prefix}:theirs-damaged:failed`, 'text')
    await redis.client.rpush(`${app.prefix}:theirs:failed`, ...Array.from({ length: 200 }, (_, i) => i))
    await redis.client.set(`${app.prefix}:theirs-broken:wait`, 'text')
    await call('tenant-theirs', '/jobs', { queue: 'theirs-broken', name: 'n' })
    await writeFile(path, '{ "version": 1, "theirs')
    await eventually(async () => /not valid JSON/.test((await call('operator-of-all', '/health')).body))
    await eventually(async () => (await call('operator-of-all', '/health')).json().queuesKnown >= 4)
    await check()

    const all = await call('operator-of-all', '/health/redis')
    t.match(all.body, /The jobs of theirs-damaged could not be counted/)
    t.match(Object.keys((await call('operator-of-all', '/stats')).json().requestsByKey), Object.keys(secrets))
    const own = (await call('tenant-mine', '/health')).json()
    t.same(Object.keys(own.queues).sort(), ['__proto__', 'mine'])
    t.match(own, { queuesKnown: 2, queuesOmitted: 0 })
    const { requestsByKey } = (await call('tenant-mine', '/stats')).json()
    t.match(requestsByKey, { 'tenant-mine': Number })
    t.equal(Object.keys(requestsByKey).length, 1)
  },
)

t.test('error texts are read only by a key with the scope manage and for all queues', async (t) => {
  t.equal(textFor(anonymous, 'ECONNREFUSED 10.0.0.7'), 'ECONNREFUSED 10.0.0.7')
  for (const access of [limited('mine'), unauthenticated]) {
    t.notMatch(textFor(access, 'ECONNREFUSED 10.0.0.7'), '10.0.0.7')
    t.equal(textFor(access, null), null)
  }
  const advice: Advice[] = [
    { level: 'warn', sentence: 'general' },
    { level: 'warn', sentence: 'of mine', queue: 'mine' },
    { level: 'warn', sentence: 'of theirs', queue: 'theirs' },
    { level: 'fail', sentence: 'quotes 10.0.0.7', quotesText: true },
  ]
  t.same(adviceFor(limited('mine'), advice), ['general', 'of mine'])
  t.same(adviceFor(anonymous, advice), ['general', 'quotes 10.0.0.7', 'of mine', 'of theirs'])
  t.same(adviceFor(unauthenticated, advice), [])
})

t.test('advice on queues is bounded, and what is left out is counted', async (t) => {
  const advice = Array.from(
    { length: 1_000 },
    (_, i): Advice => ({ level: 'warn', sentence: `s${i}`, queue: `q${i}` }),
  )
  const sentences = adviceFor(anonymous, advice)
  t.equal(sentences.length, 51)
  t.match(sentences.at(-1), 'There are 950 more recommendations on queues')
  t.same(adviceFor(limited('q999'), advice), ['s999'], 'the queues of others take no place')
})

t.test('queues of any name are listed, at most 50, and those of others take no place', async (t) => {
  const odd = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '0']
  const names = [...Array.from({ length: 100 }, (_, i) => `q${i}`), ...odd]
  const measured = {
    counted: names.map((name): [string, JobCounts] => [name, counts(1)]),
    uncounted: [],
    known: { total: 1_000_000, names },
  }
  const all = queuesFor(anonymous, measured)
  t.equal(Object.keys(all.queues).length, 50)
  t.match(all, { queuesKnown: 1_000_000, queuesOmitted: 999_950 })
  const own = queuesFor(limited(...odd), measured)
  t.same(Object.keys(own.queues).sort(), [...odd].sort())
  t.match(own, { queuesKnown: 5, queuesOmitted: 0 })
  t.match(
    JSON.parse(JSON.stringify(own)).queues,
    Object.fromEntries(odd.map((name) => [name, { waiting: 1 }])),
  )
  t.same(queuesFor(unauthenticated, measured), { queues: {}, queuesKnown: 0, queuesOmitted: 0 })
  t.same(
    Object.keys(seenBy(limited(...odd), Object.fromEntries(names.map((name) => [name, 1])))).sort(),
    [...odd].sort(),
  )
})

t.test('of what is keyed by API key a limited key sees its own entry, whatever its id', async (t) => {
  t.same(ownOf(limited(), { mine: 1, other: 2 }), { mine: 1 })
  t.same(ownOf(limited(), { other: 2 }), {})
  t.same(ownOf(anonymous, { mine: 1, other: 2 }), { mine: 1, other: 2 })
  const own = ownOf({ ...limited(), keyId: '__proto__' }, Object.fromEntries([['__proto__', 3]]))
  t.same(Object.entries(own), [['__proto__', 3]])
})
