/** F4: every route with each scope and without a key, and every endpoint that could reveal a queue outside a key's patterns. */
import t from 'tap'
import { anonymous, type Scope, scopes } from '../../src/auth/access.ts'
import { readKeyFile, revoke } from '../../src/auth/key-file.ts'
import { writeKeyFile } from '../../src/auth/key-file-update.ts'
import { eventually, startApp, type TestApp } from '../helpers/app.ts'
import { startAppWithKeys } from '../helpers/keys.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

interface Call {
  method?: 'GET' | 'POST'
  url: string
  body?: object
  headers?: Record<string, string>
}

async function call(app: TestApp, secret: string | undefined, { method = 'GET', url, body, headers }: Call) {
  const response = await app.http.inject({
    method: body ? 'POST' : method,
    url,
    headers: {
      ...(body ? { 'content-type': 'application/json' } : {}),
      ...(secret === undefined ? {} : { authorization: `Bearer ${secret}` }),
      ...headers,
    },
    ...(body ? { payload: JSON.stringify(body) } : {}),
  })
  const json = String(response.headers['content-type']).includes('json') ? response.json() : undefined
  return { status: response.statusCode, headers: response.headers, body: json, text: response.body }
}

/** Every route in the OpenAPI document, with the scope that it requires. */
function routesOf(app: TestApp) {
  const { paths } = app.http.swagger() as unknown as {
    paths: Record<string, Record<string, { security?: Record<string, string[]>[] }>>
  }
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { security }]) => ({
      method: method.toUpperCase() as 'GET' | 'POST',
      url: path.replace('{name}', 'internal').replace(/\{\w+\}/g, 'missing'),
      scope: security?.[0]?.['apiKey']?.[0] as Scope | undefined,
    })),
  )
}

const oneOfEach = Object.fromEntries(
  scopes.map((scope) => [scope, { scopes: [scope] }]),
) as unknown as Record<Scope, { scopes: Scope[] }>

t.test('a route accepts only keys with its scope; without a key only open routes respond', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, oneOfEach)
  const routes = routesOf(app)
  t.ok(routes.filter(({ scope }) => scope !== undefined).length >= 8)
  for (const { method, url, scope } of routes) {
    const name = `${method} ${url}`
    const body = method === 'POST' ? {} : undefined
    const keyless = await call(app, undefined, { method, url, ...(body ? { body } : {}) })
    if (scope === undefined) {
      t.ok(keyless.status < 400, `${name} is open`)
      continue
    }
    t.equal(keyless.status, 401, `${name} without a key`)
    t.equal(keyless.headers['www-authenticate'], 'Bearer realm="sluice"')
    for (const other of scopes) {
      // A successful event stream does not end by itself; a test below covers it.
      if (other === scope && url.endsWith('/events')) continue
      const { status, headers } = await call(app, secrets[other], { method, url, ...(body ? { body } : {}) })
      if (other === scope) t.ok(status !== 401 && status !== 403, `${name} with ${other}: ${status}`)
      else {
        t.equal(status, 403, `${name} with ${other}`)
        const challenge = `Bearer realm="sluice", error="insufficient_scope", scope="${scope}"`
        t.equal(headers['www-authenticate'], challenge)
      }
    }
  }
})

t.test('anything but a live secret is rejected, and the response does not repeat it', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, { a: { scopes: ['read'] } })
  const live = secrets.a
  const wrong = [
    '',
    'Bearer',
    `Basic ${live}`,
    live,
    `Bearer ${live}x`,
    `Bearer ${live} ${live}`,
    'Bearer hunter2',
  ]
  for (const authorization of wrong) {
    const { status, text } = await call(app, undefined, { url: '/jobs/q:x', headers: { authorization } })
    t.equal(status, 401, authorization)
    t.notMatch(text, /hunter2|sluice_a/)
  }
  const any = await call(app, undefined, { url: '/jobs/q:x', headers: { authorization: `bearer  ${live}` } })
  t.equal(any.status, 404, 'the scheme is case-insensitive')
  t.equal(
    (await call(app, 'wrong', { url: '/health/live' })).status,
    401,
    'a wrong key is rejected by open routes too',
  )
})

t.test('a queue outside the patterns is reported as not found by every endpoint', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, {
    all: { scopes: ['enqueue', 'read', 'manage'] },
    some: { scopes: ['enqueue', 'read', 'manage'], queues: ['mine', 'img-*'] },
  })
  const add = (queue: string) => ({ url: '/jobs', body: { queue, name: 'n' } })
  const theirs = (await call(app, secrets.all, add('theirs'))).body.id as string
  const mine = (await call(app, secrets.some, add('mine'))).body.id as string
  t.equal((await call(app, secrets.some, add('img-1'))).status, 201)
  const keysOfTheirs = async () => (await redis.client.keys(`${app.prefix}:theirs:*`)).sort()
  const before = await keysOfTheirs()

  t.match(await call(app, secrets.some, add('theirs')), { status: 404, body: { code: 'QUEUE_NOT_FOUND' } })
  t.match(await call(app, secrets.some, { url: '/jobs', body: { name: 'n' } }), {
    status: 404,
    body: { code: 'QUEUE_NOT_FOUND' },
  })
  const jobs = [
    { queue: 'theirs', name: 'n' },
    { queue: 'mine', name: 'n' },
  ]
  t.match(await call(app, secrets.some, { url: '/jobs/batch', body: { jobs } }), {
    status: 207,
    body: { results: [{ status: 404, error: { code: 'QUEUE_NOT_FOUND' } }, { status: 201 }] },
  })
  t.same(await keysOfTheirs(), before, 'nothing was written to the queue')

  await call(app, secrets.all, { url: `/jobs/${theirs}` })
  const missing = await call(app, secrets.some, { url: '/jobs/mine:missing' })
  for (const url of [`/jobs/${theirs}`, `/jobs/${theirs}?wait=1`, `/jobs/${theirs}/events`]) {
    const { status, body } = await call(app, secrets.some, { url })
    t.equal(status, 404, `${url}, although it is cached`)
    t.match(body, { ...missing.body, instance: String })
  }
  const both = await call(app, secrets.some, { url: `/jobs?ids=${theirs},${mine}` })
  t.match(both, { status: 200, body: { jobs: [null, { id: mine }] } })
  const nowhere = await call(app, secrets.some, { url: '/jobs?queue=nowhere' })
  const page = await call(app, secrets.some, { url: '/jobs?queue=theirs' })
  t.match(page, { status: 404, body: { ...nowhere.body, instance: String } })
  t.equal((await call(app, secrets.some, { url: '/queues/theirs/events' })).status, 404)
  t.equal((await call(app, secrets.some, { url: `/jobs?queue=mine` })).body.jobs.length, 2)

  // The names of new queues are stored in the background.
  await eventually(
    async () => (await redis.client.zscore(`${app.prefix}::sluice:known-queues`, 'theirs')) !== null,
  )
  for (const url of ['/health', '/health/redis', '/stats']) {
    const { text } = await call(app, secrets.some, { url })
    t.notMatch(text, /theirs/, url)
  }
  t.equal((await call(app, secrets.some, { url: '/health' })).body.queuesKnown, 2)
  t.match((await call(app, secrets.all, { url: '/health/redis' })).body, {
    queues: { theirs: { waiting: 1 } },
    queuesKnown: 3,
  })
})

t.test('two API keys never share an idempotency key', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, {
    a: { scopes: ['enqueue'] },
    b: { scopes: ['enqueue'] },
  })
  const request = { url: '/jobs', body: { name: 'n' }, headers: { 'idempotency-key': 'k' } }
  const first = await call(app, secrets.a, request)
  const other = await call(app, secrets.b, request)
  t.equal(other.status, 201)
  t.not(other.body.id, first.body.id)
  t.match(await call(app, secrets.a, request), { status: 200, body: { id: first.body.id } })
})

t.test(
  'waiting for a result needs the scope read, which is checked before anything is enqueued',
  async (t) => {
    const { app, secrets } = await startAppWithKeys(t, redis, {
      producer: { scopes: ['enqueue'] },
      both: { scopes: ['enqueue', 'read'] },
    })
    const add = (url: string, jobId: string, headers = {}) => ({
      ...{ url, headers },
      body: { queue: 'q', name: 'n', opts: { jobId } },
    })
    const theirs = await call(app, secrets.both, add('/jobs', 'theirs'))
    t.equal(theirs.status, 201)
    for (const [url, headers] of [
      ['/jobs?wait=1', {}],
      ['/jobs', { prefer: 'wait=1' }],
      ['/jobs', { prefer: 'respond-async, wait=1' }],
    ] as const) {
      for (const jobId of ['theirs', 'mine']) {
        const refused = await call(app, secrets.producer, add(url, jobId, headers))
        t.match(
          refused,
          { status: 403, body: { code: 'MISSING_SCOPE' } },
          `${url} ${JSON.stringify(headers)}`,
        )
        t.match(refused.headers['www-authenticate'], /scope="read"/)
      }
    }
    t.equal(await redis.client.exists(`${app.prefix}:q:mine`), 0, 'nothing was enqueued')
    t.equal(
      (await call(app, secrets.producer, add('/jobs?wait=0', 'mine'))).status,
      201,
      'without a wait it is',
    )
    t.match(await call(app, secrets.both, add('/jobs?wait=1', 'theirs')), {
      status: 200,
      body: { state: 'waiting', deduplicated: true },
    })
  },
)

t.test(
  '/health reveals no queue, address or recommendation to a caller without the scope manage',
  async (t) => {
    const { app, secrets } = await startAppWithKeys(t, redis, {
      operator: { scopes: ['enqueue', 'manage'] },
      producer: { scopes: ['enqueue'] },
    })
    await call(app, secrets.operator, { url: '/jobs', body: { queue: 'hidden', name: 'n' } })
    await eventually(async () => (await redis.client.zcard(`${app.prefix}::sluice:known-queues`)) === 1)
    const full = await call(app, secrets.operator, { url: '/health' })
    t.match(full.body, { queues: { hidden: { waiting: 1 } }, recommendations: [/appendfsync/] })
    for (const secret of [undefined, secrets.producer]) {
      const { status, body, text } = await call(app, secret, { url: '/health' })
      t.match(
        { status, body },
        { status: 200, body: { cached: true, queues: {}, queuesKnown: 0, recommendations: [] } },
      )
      t.notMatch(text, /hidden/)
    }
  },
)

t.test('a key that is revoked while the service runs is rejected within two seconds', async (t) => {
  const { app, secrets, path } = await startAppWithKeys(t, redis, { a: { scopes: ['read'] } })
  t.equal((await call(app, secrets.a, { url: '/jobs/q:x' })).status, 404)
  await writeKeyFile(path, revoke((await readKeyFile(path))!, 'a', undefined, new Date().toISOString()))
  const status = async () => (await call(app, secrets.a, { url: '/jobs/q:x' })).status
  await eventually(async () => (await status()) === 401, 4_000)
})

t.test('a service without keys accepts every caller, and ignores keys that are sent', async (t) => {
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  t.equal((await call(app, undefined, { url: '/stats' })).status, 200)
  t.equal((await call(app, 'whatever', { url: '/stats' })).status, 200)
  t.ok(anonymous.hasScope('manage') && anonymous.canAccessQueue('any'))
})
