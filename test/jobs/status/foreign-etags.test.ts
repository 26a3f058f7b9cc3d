/** The ETag of a job proves nothing to a key that may not see its queue: every answer is that of a job that does not exist. */
import t from 'tap'
import { startAppWithKeys } from '../../helpers/keys.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const { app, secrets } = await startAppWithKeys(t, redis, {
  all: { scopes: ['enqueue', 'read'] },
  mine: { scopes: ['enqueue', 'read'], queues: ['mine'] },
})

type Headers = Record<string, string>

const send = (secret: string, url: string, headers: Headers = {}) =>
  app.http.inject({
    url,
    headers: { ...headers, authorization: `Bearer ${secret}` },
    // An event stream that should not have opened would never end.
    signal: AbortSignal.timeout(5_000),
  })

async function add(queue: string, jobId: string): Promise<string> {
  const response = await app.http.inject({
    method: 'POST',
    url: '/jobs',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${secrets.all}` },
    payload: JSON.stringify({ queue, name: 'n', data: { a: 1 }, opts: { jobId } }),
  })
  if (response.statusCode !== 201) throw new Error(response.body)
  return String(response.headers['etag'])
}

/** All that a client sees but the id of the request (and its length), the name that it sent, and what depends on the time. */
async function seen(url: string, headers: Headers, key: string) {
  const response = await send(secrets.mine, url, headers)
  const { date: _date, 'x-request-id': requestId, 'content-length': _length, ...rest } = response.headers
  const timed = ['retry-after', 'cache-status'].filter((name) => name in rest)
  const normalized = {
    ...rest,
    ...Object.fromEntries(timed.map((name) => [name, String(rest[name]).replace(/\d+.*/, '')])),
  }
  const body = response.body.replaceAll(String(requestId), '').replaceAll(key, 'KEY')
  return { status: response.statusCode, headers: normalized, body }
}

const stored = await add('theirs', 'real')
await add('mine', 'own')
// It is cached from here on.
await send(secrets.all, '/jobs/mine:own')
const [read, many] = await Promise.all(
  ['/jobs/theirs:real', '/jobs?ids=theirs:real'].map(async (url) => send(secrets.all, url)),
)
const etags = [stored, String(read!.headers['etag']), String(many!.headers['etag']), '*']

t.test('its owner gets 304 for each of the ETags, so that they are real', async (t) => {
  for (const [url, etag] of [
    ['/jobs/theirs:real', read!.headers['etag']],
    ['/jobs?ids=theirs:real', many!.headers['etag']],
  ] as const)
    t.equal((await send(secrets.all, url, { 'if-none-match': String(etag) })).statusCode, 304, url)
})

const paths = [
  (id: string) => `/jobs/${id}`,
  (id: string) => `/jobs/${id}?include=data,logs`,
  (id: string) => `/jobs/${id}?wait=1`,
  (id: string) => `/jobs/${id}?wait=1&until=change`,
  (id: string) => `/jobs/${id}/events`,
  (id: string) => `/jobs?ids=${id}`,
  (id: string) => `/jobs?ids=${id},mine:own`,
]
const readings: Headers[] = [
  {},
  { 'cache-control': 'no-cache' },
  { prefer: 'wait=1' },
  { 'last-event-id': '0-0' },
]

t.test('a limited key sees no difference between a real job of another queue and none', async (t) => {
  for (const path of paths) {
    for (const etag of etags) {
      for (const reading of readings) {
        const headers = { ...reading, 'if-none-match': etag }
        // Twice: the job is read from Redis, and from the cache.
        const real = [
          await seen(path('theirs:real'), headers, 'real'),
          await seen(path('theirs:real'), headers, 'real'),
        ]
        const none = [
          await seen(path('theirs:none'), headers, 'none'),
          await seen(path('theirs:none'), headers, 'none'),
        ]
        const name = `${path('ID')} ${JSON.stringify(headers)}`
        t.same(real, none, name)
        if (!path('ID').startsWith('/jobs?')) t.equal(real[0]!.status, 404, name)
        else if (etag !== '*') t.equal(real[0]!.status, 200, name)
      }
    }
  }
})

t.test('the queue itself answers as one that does not exist', async (t) => {
  for (const path of ['/jobs?queue=QUEUE', '/queues/QUEUE/events']) {
    for (const etag of etags) {
      const headers = { 'if-none-match': etag, 'last-event-id': '0-0' }
      const real = await seen(path.replace('QUEUE', 'theirs'), headers, 'theirs')
      const none = await seen(path.replace('QUEUE', 'nowhere'), headers, 'nowhere')
      t.same(real, none, path)
      t.equal(real.status, 404)
    }
  }
})
