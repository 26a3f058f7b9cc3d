/** API keys of workers: a key needs the scope, and reaches no queue, lease or subscription outside its patterns. */
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { loadOrCreateSecret } from '../../src/config/secret.ts'
import { createLeaseSealer } from '../../src/leases/lease-token.ts'
import { startAppWithKeys } from '../helpers/keys.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

t.test('the lease of a queue outside the patterns is reported as not found', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, {
    all: { scopes: ['enqueue', 'work'] },
    mine: { scopes: ['work'], queues: ['mine'] },
  })
  const call = async (secret: string, url: string, body: object) => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${secret}` }
    const response = await app.http.inject({ method: 'POST', url, headers, payload: JSON.stringify(body) })
    return { status: response.statusCode, body: response.statusCode === 204 ? undefined : response.json() }
  }
  const jobs = [1, 2].map(() => ({ queue: 'theirs', name: 'n' }))
  t.equal((await call(secrets.all, '/jobs/batch', { jobs })).status, 201)
  t.match(await call(secrets.mine, '/queues/theirs/leases', {}), {
    status: 404,
    body: { code: 'QUEUE_NOT_FOUND' },
  })
  const [{ lease }] = (await call(secrets.all, '/queues/theirs/leases', {})).body.jobs
  const notFound = { status: 207, body: { results: [{ status: 404, error: { code: 'JOB_NOT_FOUND' } }] } }
  t.match(await call(secrets.mine, '/leases/settle', { items: [{ lease, outcome: 'complete' }] }), notFound)
  t.match(await call(secrets.mine, '/leases/extend', { items: [{ lease }] }), notFound)
  const own = (await call(secrets.all, '/leases/settle', { items: [{ lease, outcome: 'release' }] })).body
  t.match(own.results, [{ status: 200 }])
  const next = { items: [{ lease: 'x', outcome: 'complete' }], next: { queue: 'theirs' } }
  t.match(await call(secrets.mine, '/leases/settle', next), {
    status: 404,
    body: { code: 'QUEUE_NOT_FOUND' },
  })
  const put = await app.http.inject({
    method: 'PUT',
    url: '/queues/theirs/subscription',
    payload: JSON.stringify({ url: 'https://1.1.1.1/' }),
    headers: { 'content-type': 'application/json', authorization: `Bearer ${secrets.mine}` },
  })
  t.equal(put.statusCode, 404)
})

t.test(
  'a stored secret is created once, is readable by this user alone, and must not be short',
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-secret-'))
    t.teardown(() => rm(folder, { recursive: true }))
    const [one, other] = await Promise.all([loadOrCreateSecret(folder), loadOrCreateSecret(folder)])
    t.equal(one, other)
    t.ok(one.length >= 32)
    t.equal(await readFile(join(folder, 'secret'), 'utf8'), one)
    t.equal((await stat(join(folder, 'secret'))).mode & 0o777, 0o600)
    await writeFile(join(folder, 'secret'), 'short')
    await t.rejects(loadOrCreateSecret(folder), /holds no valid secret: remove it/)
    await writeFile(join(folder, 'secret'), 'x'.repeat(40))
    await chmod(join(folder, 'secret'), 0o644)
    t.equal(await loadOrCreateSecret(folder), 'x'.repeat(40))
    t.equal(
      (await stat(join(folder, 'secret'))).mode & 0o777,
      0o600,
      'a secret that others may read is closed',
    )
  },
)

t.test('a lease is valid exactly as it was issued', async (t) => {
  const sealer = createLeaseSealer(['s'.repeat(32), 'o'.repeat(32)])
  const job = { queue: 'q', key: 'k', token: 't', opts: '{}', attemptsMade: 0, attemptsStarted: 1 }
  const lease = sealer.seal(job)
  t.same(sealer.open(lease), job)
  t.same(sealer.open(createLeaseSealer(['o'.repeat(32)]).seal(job)), job)
  const [text = '', seal = ''] = lease.split('.')
  const others = [
    `${lease}.x`,
    `${lease}=`,
    `x.${lease}`,
    `${text}.${seal.slice(0, -1)}`,
    `${text}.`,
    `.${seal}`,
    text,
    '.',
    '',
  ]
  // The last character holds bits that are not used.
  const last = String.fromCharCode(seal.charCodeAt(seal.length - 1) + 1)
  for (const other of [...others, `${lease.slice(0, -1)}${last}`]) {
    t.throws(() => sealer.open(other), { code: 'INVALID_LEASE' }, other)
  }
})
