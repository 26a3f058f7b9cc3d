/** Queues and jobs with the names that native producers give them, and key prefixes, on every route and over real sockets. */
import { FlowProducer, Queue, Worker } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from './helpers/app.ts'
import { startAppWithKeys } from './helpers/keys.ts'
import { startRedis, uniquePrefix } from './helpers/redis.ts'
import { follow, listen } from './helpers/sse.ts'
import { startReceiver } from './webhooks/endpoint.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const connection = { path: redis.socket, maxRetriesPerRequest: null }

const NAMES = ['a/b', 'a?b', 'a#b', '50%', '%2F', 'a&b=c', 'a+b', ' a b ', 'a,b', 'é😀', `"'\\\``, '..', '.', '.hidden', '__proto__',
  'constructor', 'a\nb', '\r\nX-Injected= 1', '\0', '{a}', 'a*[b]', 'a data', 'é'.repeat(300)] // biome-ignore format: a list
/** Also ids that a plain key was once taken for: `a` with its data, `a` waited for with its logs. */
const KEYS = [...NAMES, 'waiting', 'sluice', 'a', 'a d', 'a l', 'a:b:c', 'x'.repeat(4_000)]

interface Job {
  id: string
  queue: string
  lease: string
  data: unknown
}

const segment = encodeURIComponent
/** `.` and `..` need a colon, because URLs drop such segments. */
const queueSegment = (name: string) => (/^\.\.?$/.test(name) ? `${name}:` : segment(name))

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', HEALTH_TTL: '0', ...settings })
  const url = await listen(app)
  const queues: Queue[] = []
  t.teardown(async () => {
    await Promise.all(queues.map((queue) => queue.close()))
    await app.http.close()
  })
  const queueOf = (name: string) => {
    const queue = new Queue(name, { connection: redis.client, prefix: app.prefix })
    queues.push(queue)
    return queue
  }
  return { app, url, queueOf, ...createClient(url) }
}

function createClient(url: string, headers: Record<string, string> = {}) {
  async function send(method: string, path: string, body?: object) {
    const init = body
      ? { body: JSON.stringify(body), headers: { ...headers, 'content-type': 'application/json' } }
      : { headers }
    const response = await fetch(url + path, { method, ...init })
    const text = await response.text()
    return {
      status: response.status,
      headers: response.headers,
      body: text === '' ? undefined : JSON.parse(text),
    }
  }
  return {
    send,
    get: (path: string) => send('GET', path),
    post: (path: string, body: object) => send('POST', path, body),
  }
}

t.test('a job of a native producer is read by its id, alone or among others', async (t) => {
  const { get, queueOf } = await open(t)
  const queue = queueOf('q')
  await queue.addBulk(KEYS.map((jobId, i) => ({ name: 'n', data: { i }, opts: { jobId } })))
  for (const [i, key] of KEYS.entries()) {
    const id = `q:${key}`
    for (const _ of ['read', 'cached']) {
      t.match((await get(`/jobs/${segment(id)}`)).body, { id, queue: 'q', state: 'waiting' })
      t.same((await get(`/jobs/${segment(id)}?include=data`)).body.data, { i }, key)
    }
    t.match((await get(`/jobs?id=${segment(id)}`)).body.jobs, [{ id }])
  }
  const query = KEYS.slice(0, 20).map((key) => `id=${segment(`q:${key}`)}`)
  t.same(
    (await get(`/jobs?ids=q:none,q:waiting&${query.join('&')}`)).body.jobs.map((job: Job | null) => job?.id),
    [undefined, 'q:waiting', ...KEYS.slice(0, 20).map((key) => `q:${key}`)],
  )
  const listed = (await get('/jobs?queue=q&limit=200')).body.jobs as Job[]
  t.same(new Set(listed.map(({ id }) => id)), new Set(KEYS.map((key) => `q:${key}`)))
  t.equal((await get('/jobs?id=q:a&queue=q')).status, 400)
  t.equal((await get(`/jobs?${'id=q:a&'.repeat(201)}`)).status, 400)
})

t.test('a job is waited for and followed by its id', async (t) => {
  const { url, get, queueOf, app } = await open(t)
  const queue = queueOf('q')
  const keys = KEYS.filter((key) => key.length < 600)
  await queue.addBulk(keys.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const streams = keys.slice(0, 20).map((key) => follow(t, `${url}/jobs/${segment(`q:${key}`)}/events`))
  await Promise.all(streams.map(({ next }) => next('snapshot')))
  const waits = keys.map((key) => get(`/jobs/${segment(`q:${key}`)}?wait=20&include=data,logs`))
  const variants = ['a?wait=20&include=data', 'a%20d?wait=20', 'a?wait=20&include=logs', 'a%20l?wait=20']
  const twins = variants.map((variant) => get(`/jobs/q:${variant}`))
  const expected = keys.length + variants.length
  await eventually(async () => (await app.http.inject('/stats')).json().waits.open >= expected)
  const worker = new Worker('q', async ({ id }) => id, { connection, prefix: app.prefix, concurrency: 10 })
  t.teardown(() => worker.close())
  for (const [i, { body }] of (await Promise.all(waits)).entries())
    t.match(body, { id: `q:${keys[i]}`, state: 'completed', result: keys[i] })
  const answered = (await Promise.all(twins)).map(({ body }) => body.id)
  t.same(answered, ['q:a', 'q:a d', 'q:a', 'q:a l'])
  for (const [i, { received }] of streams.entries()) {
    await eventually(() => received.some(({ data }) => data['state'] === 'completed'))
    t.ok(received.every(({ data }) => data['id'] === `q:${keys[i]}`))
  }
})

t.test('a queue is listed, followed, leased from and settled by its name', async (t) => {
  const { app, url, get, post, queueOf } = await open(t)
  for (const name of NAMES) {
    const queue = queueOf(name)
    await queue.addBulk(['a/b', 'c d', 'e'].map((jobId) => ({ name: 'n', data: { name }, opts: { jobId } })))
    t.match((await get(`/jobs?queue=${segment(name)}&state=waiting`)).body.jobs.length, 3, name)
    const events = follow(t, `${url}/queues/${queueSegment(name)}/events`)
    t.match((await events.next('snapshot')).data, { queue: name, counts: { waiting: 3 } })
    const leases = `/queues/${queueSegment(name)}/leases`
    const [first] = (await post(leases, { max: 1, wait: 5 })).body.jobs as Job[]
    t.match(first, { id: `${name}:a/b`, data: { name } })
    const items = [{ lease: first!.lease, progress: 1, log: 'line' }]
    t.match((await post('/leases/extend', { items })).body.results, [{ status: 200, id: first!.id }])
    const complete = (job: Job) => [{ lease: job.lease, outcome: 'complete', result: { name } }]
    const second = (await post('/leases/settle', { items: complete(first!), next: {} })).body
    t.match(second, { results: [{ status: 200 }], jobs: [{ id: `${name}:c d` }] })
    const next = { queue: name, max: 1 }
    const third = (await post('/leases/settle', { items: complete(second.jobs[0]), next })).body
    t.match(third, { results: [{ status: 200 }], jobs: [{ id: `${name}:e` }] })
    t.match((await get(`/jobs/${segment(`${name}:a/b`)}`)).body, { state: 'completed', result: { name } })
    t.equal((await queue.getJob('c d'))?.returnvalue.name, name, 'as BullMQ sees it')
    await eventually(() =>
      events.received.some(({ data }) => data['id'] === `${name}:c d` && data['state'] === 'completed'),
    )
    events.close()
  }
  const known = async () => redis.client.zrange(`${app.prefix}::sluice:known-queues`, '0', '-1')
  await eventually(async () => (await known()).length === NAMES.length)
  const { queues } = (await get('/health')).body
  t.same(new Set(Object.keys(queues)), new Set(NAMES))
  for (const name of NAMES)
    t.equal(
      Object.entries<{ completed: number }>(queues).find(([other]) => other === name)![1].completed,
      2,
      name,
    )
})

t.test('the jobs of a queue are pushed, whatever their names are', async (t) => {
  const { app, send, get, queueOf } = await open(t)
  const receiver = await startReceiver(t)
  for (const name of NAMES) {
    const path = `/queues/${queueSegment(name)}/subscription`
    t.equal((await send('PUT', path, { url: receiver.url })).status, 201, name)
    await queueOf(name).add('n', {}, { jobId: 'k/é' })
  }
  await eventually(() => receiver.received.length === NAMES.length)
  t.same(
    receiver.received.map(({ job }) => [job.queue, job.id]).toSorted(),
    NAMES.map((name) => [name, `${name}:k/é`]).toSorted(),
  )
  const replica = await startApp(redis, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', QUEUE_PREFIX: app.prefix })
  t.teardown(() => replica.http.close())
  const stats = async () => (await replica.http.inject('/stats')).json().webhooks.subscriptions
  await eventually(async () => (await stats()) === NAMES.length)
  for (const name of NAMES) {
    const path = `/queues/${queueSegment(name)}/subscription`
    t.match((await get(path)).body, { queue: name, problem: null })
    t.equal((await send('POST', `${path}/secrets`, {})).status, 201)
    t.equal((await send('DELETE', path)).status, 204)
  }
})

t.test('jobs are enqueued into an existing queue of any name, and Location leads to each', async (t) => {
  const { app, url, post, queueOf } = await open(t)
  const at = async (location: string | null) => {
    t.match(location, /^\/jobs\/[\x21-\x7e]+$/)
    return (await fetch(new URL(location!, url))).json() as Promise<{ id: string }>
  }
  for (const queue of NAMES.filter((name) => !/^[\w.-]+$/.test(name))) {
    const refused = await post('/jobs', { queue, name: 'n' })
    t.match(
      refused.body,
      { code: 'INVALID_NAME', errors: [{ pointer: '/queue', detail: /existing queue/ }] },
      queue,
    )
    const batch = await post('/jobs/batch', {
      jobs: [
        { queue: 'plain', name: 'n' },
        { queue, name: 'n' },
      ],
    })
    t.match(batch.body, {
      created: 1,
      failed: 1,
      results: [{ status: 201 }, { error: { code: 'INVALID_NAME', errors: [{ pointer: '/jobs/1/queue' }] } }],
    })
    t.same(
      (await redis.client.keys('*')).filter((key) => key.startsWith(`${app.prefix}:${queue}:`)),
      [],
      'nothing was created',
    )
    await queueOf(queue).add(
      'native',
      {},
      { jobId: 'odd key/?#%', deduplication: { id: 'd' }, delay: 60_000 },
    )
    const created = await post('/jobs', { queue, name: 'n', opts: { jobId: 'k' } })
    t.equal(created.status, 201, queue)
    t.match(await at(created.headers.get('location')), { id: `${queue}:k` })
    const again = await post('/jobs', { queue, name: 'n', opts: { deduplication: { id: 'd' } } })
    t.equal(again.status, 200)
    t.match(again.body, { id: `${queue}:odd key/?#%`, deduplicated: true })
    t.match(await at(again.headers.get('location')), { id: `${queue}:odd key/?#%` })
    t.equal(
      (
        await post('/jobs/batch', {
          jobs: [
            { queue, name: 'n' },
            { queue, name: 'n' },
          ],
        })
      ).body.created,
      2,
    )
    const waited = await post('/jobs?wait=0', { queue, name: 'n' })
    t.match(await at(waited.headers.get('location')), { id: waited.body.id })
  }
})

t.test(
  'Location leads to a job that exists already, whatever its key; a key too long for a URL has none',
  async (t) => {
    const { url, post, queueOf } = await open(t)
    const headers = { 'content-type': 'application/json', 'idempotency-key': 'k1' }
    for (const [i, jobId] of [...KEYS, 'y'.repeat(20_000)].entries()) {
      const id = `d${i}`
      await queueOf('q').add('n', {}, { jobId, deduplication: { id } })
      const opts = { deduplication: { id } }
      const { status, body, headers: got } = await post('/jobs', { queue: 'q', name: 'n', opts })
      t.equal(status, 200)
      t.equal(body.id, `q:${jobId}`)
      const location = got.get('location')
      if (jobId.length > 4_096) t.equal(location, null)
      else t.equal(((await (await fetch(new URL(location!, url))).json()) as Job).id, body.id)
      if (i > 0) continue
      const request = { method: 'POST', headers, body: JSON.stringify({ queue: 'q', name: 'n', opts }) }
      await fetch(`${url}/jobs`, request)
      const replayed = await fetch(`${url}/jobs`, request)
      t.equal(replayed.headers.get('idempotency-replayed'), 'true')
      t.equal(replayed.headers.get('location'), location)
    }
  },
)

t.test('a key sees the queues that its patterns name, and no others', async (t) => {
  const patterns = ['a/*', '\\*', 'é😀', 'a\\,b', '__proto__']
  const grants = {
    some: { scopes: ['read', 'work', 'enqueue', 'manage'] as const, queues: patterns },
  }
  const { app, secrets } = await startAppWithKeys(
    t,
    redis,
    { some: { scopes: [...grants.some.scopes], queues: patterns } },
    { HEALTH_TTL: '0' },
  )
  const { get, post, send } = createClient(await listen(app), { authorization: `Bearer ${secrets.some}` })
  const seen = ['a/', 'a/b c', '*', 'é😀', 'a,b', '__proto__']
  const hidden = ['a', 'b/a/', '**', 'x*', 'é', 'a\\,b', 'constructor', 'secret\nname']
  for (const name of [...seen, ...hidden]) {
    const queue = new Queue(name, { connection: redis.client, prefix: app.prefix })
    await queue.add('n', {}, { jobId: 'k' })
    const isSeen = seen.includes(name)
    const id = `${name}:k`
    t.equal((await get(`/jobs/${segment(id)}`)).status, isSeen ? 200 : 404, name)
    t.match((await get(`/jobs?id=${segment(id)}`)).body.jobs, [isSeen ? { id } : null])
    t.equal((await get(`/jobs?queue=${segment(name)}`)).status, isSeen ? 200 : 404)
    t.equal(
      (await send('DELETE', `/queues/${segment(name)}/subscription`)).body.code,
      isSeen ? 'SUBSCRIPTION_NOT_FOUND' : 'QUEUE_NOT_FOUND',
    )
    t.equal((await post('/jobs', { queue: name, name: 'n' })).status, isSeen ? 201 : 404)
    t.equal((await post(`/queues/${segment(name)}/leases`, {})).status, isSeen ? 200 : 404)
  }
  t.equal(
    (await post('/jobs', { queue: 'not there/', name: 'n' })).body.code,
    'QUEUE_NOT_FOUND',
    'as an existing one',
  )
  const health = (await get('/health')).body
  t.same(
    Object.keys(health.queues).filter((name) => hidden.includes(name)),
    [],
  )
  t.ok(Object.keys(health.queues).includes('__proto__'))
  t.notMatch(JSON.stringify((await get('/stats')).body), 'secret')
})

const PREFIXES = ['app:prod', '{bull}', '{app:prod}', 'a[b]*?\\ é/', 'trailing:']

for (const form of PREFIXES) {
  t.test(`with the prefix ${form} this service and native workers share everything`, async (t) => {
    const unique = `${uniquePrefix()}-`
    const prefix = form.startsWith('{') ? `{${unique}${form.slice(1)}` : `${unique}${form}`
    const { app, url, get, post, send, queueOf } = await open(t, { QUEUE_PREFIX: prefix })
    const receiver = await startReceiver(t)
    const queue = queueOf('q')
    const events = follow(t, `${url}/queues/q/events`)
    await events.next('snapshot')

    t.equal((await post('/jobs', { queue: 'q', name: 'n', opts: { jobId: 'native' } })).status, 201)
    t.match((await events.next('added')).data, { id: 'q:native' })
    t.match((await get('/jobs?queue=q')).body.jobs, [{ id: 'q:native' }])
    const waiting = get('/jobs/q:native?wait=20')
    const worker = new Worker('q', async () => 'done', { connection, prefix })
    t.match((await waiting).body, { state: 'completed', result: 'done' })
    await worker.close()

    const waited = post('/queues/q/leases', { wait: 20 })
    await queue.upsertJobScheduler('every/hour', { every: 3_600_000 }, { name: 'tick' })
    const [tick] = (await waited).body.jobs as Job[]
    t.match(tick!.id, /^q:repeat:every\/hour:\d+$/)
    t.match((await get(`/jobs/${segment(tick!.id)}`)).body, { state: 'active', name: 'tick' })
    const items = [{ lease: tick!.lease, outcome: 'complete' }]
    t.equal((await post('/leases/settle', { items })).status, 200)
    t.equal(await queue.getDelayedCount(), 1, 'the scheduler goes on')

    const flows = new FlowProducer({ connection: redis.client, prefix })
    const other = `${uniquePrefix()}:other`
    const children = [
      { name: 'c', queueName: 'q', opts: { jobId: 'child' } },
      { name: 'c', queueName: 'elsewhere', prefix: other, opts: { jobId: 'far' } },
    ]
    await flows.add({ name: 'p', queueName: 'parents', opts: { jobId: 'parent é' }, children })
    await flows.add({
      name: 'p',
      queueName: 'elsewhere',
      prefix: other,
      opts: { jobId: 'far parent' },
      children: [{ name: 'c', queueName: 'calm', prefix, opts: { jobId: 'child' } }],
    })
    t.match((await get('/jobs/q:child')).body, { parent: 'parents:parent é' })
    t.match((await get('/jobs?queue=q&state=waiting')).body.jobs, [{ parent: 'parents:parent é' }])
    const far = (await get('/jobs/calm:child')).body
    t.equal(far.parent, null, 'the id of a job with another prefix would name another job')
    t.notOk('malformed' in far)
    t.match((await get(`/jobs/${segment('parents:parent é')}`)).body, { state: 'waiting-children' })
    t.equal((await send('PUT', '/queues/q/subscription', { url: receiver.url })).status, 201)
    await eventually(() => receiver.received.length === 1)
    t.match(receiver.received[0]!.job, { id: 'q:child' })
    const farWorker = new Worker('elsewhere', async () => 1, { connection, prefix: other })
    t.match((await get(`/jobs/${segment('parents:parent é')}?wait=20&until=change`)).body, {
      state: 'waiting',
    })
    await farWorker.close()
    t.match((await post('/queues/parents/leases', {})).body.jobs, [{ id: 'parents:parent é' }])

    const known = () => redis.client.zrange(`${prefix}::sluice:known-queues`, '0', '-1')
    await eventually(async () => (await known()).length === 3)
    t.same(Object.keys((await get('/health')).body.queues).toSorted(), ['calm', 'parents', 'q'])
    const strangers = (await redis.client.keys('*')).filter(
      (key) => key.includes('::sluice:') && key.includes(unique) && !key.startsWith(`${prefix}::`),
    )
    t.same(strangers, [], 'every key of the service has the whole prefix')
    t.equal(app.prefix, prefix)
  })
}
