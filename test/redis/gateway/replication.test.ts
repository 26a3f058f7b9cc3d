/**
 * DURABILITY_REPLICAS: a replica has every acknowledged job; a job that is not confirmed is reported as such.
 */
import t, { type Test } from 'tap'
import { eventually, startApp, type TestApp } from '../../helpers/app.ts'
import { startRedis, type TestRedis } from '../../helpers/redis.ts'

async function post(app: TestApp, body: object = { queue: 'q', name: 'n' }, url = '/jobs') {
  const headers = { 'content-type': 'application/json' }
  const response = await app.http.inject({ method: 'POST', url, headers, payload: JSON.stringify(body) })
  return { status: response.statusCode, headers: response.headers, body: response.json() }
}

/** A master and a replica that follows it. */
async function openPair(t: Test, settings: Record<string, string> = {}) {
  const port = 20_000 + Math.floor(Math.random() * 20_000)
  const master = await startRedis([
    '--port',
    `${port}`,
    '--bind',
    '127.0.0.1',
    '--repl-diskless-sync-delay',
    '0',
  ])
  const replica = await startRedis(['--replicaof', `127.0.0.1 ${port}`])
  const app = await startApp(master, { DURABILITY_REPLICAS: '1', DURABILITY_TIMEOUT: '300', ...settings })
  t.teardown(async () => {
    await app.http.close()
    await replica.stop()
    await master.stop()
  })
  await eventually(async () => (await replica.client.info('replication')).includes('master_link_status:up'))
  await eventually(async () => (await post(app)).status === 201)
  return { master, replica, app }
}

const pidOf = async ({ client }: TestRedis) =>
  Number(/process_id:(\d+)/.exec(await client.info('server'))![1])
const waits = async ({ client }: TestRedis) =>
  Number(/cmdstat_wait:calls=(\d+)/.exec(await client.info('commandstats'))?.[1] ?? 0)

t.test('the replica has every acknowledged job, and many jobs share one WAIT', async (t) => {
  const { master, replica, app } = await openPair(t)
  const before = await waits(master)
  const responses = await Promise.all(Array.from({ length: 500 }, () => post(app)))
  for (const { status, body } of responses) {
    if (status !== 201 || (await replica.client.exists(`${app.prefix}:${body.id}`)) !== 1) t.fail(body)
  }
  const sent = (await waits(master)) - before
  t.ok(sent >= 1 && sent <= 100, `${sent} WAITs for 500 jobs`)
  const health = (await app.http.inject('/health/redis')).json()
  t.match(health, { replicasWanted: 1, server: { replicas: 1 }, connections: { created: 5 } })
})

t.test('a frozen replica causes 503 with outcome unknown and the id; a repeat finds the job', async (t) => {
  const { replica, app } = await openPair(t)
  const pid = await pidOf(replica)
  const job = { queue: 'q', name: 'n', opts: { jobId: 'mine' } }
  process.kill(pid, 'SIGSTOP')
  try {
    const response = await post(app, job)
    t.match(response, {
      status: 503,
      body: { code: 'NOT_REPLICATED', outcome: 'unknown', ids: ['q:mine'], retryable: true },
    })
    t.match(response.body.detail, /0 of 1 replicas confirmed it within 300 ms/)
    const batch = { jobs: [{ name: 'n', queue: 'q' }, { name: '' }] }
    t.match(await post(app, batch, '/jobs/batch'), {
      status: 503,
      body: { code: 'NOT_REPLICATED', outcome: 'unknown' },
    })
    const began = performance.now()
    const waiting = post(app)
    t.equal((await app.http.inject('/jobs/q:mine')).statusCode, 200)
    t.ok(performance.now() - began < 250, 'reads do not wait behind the WAIT')
    await waiting
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  await eventually(async () => (await post(app)).status === 201)
  t.match(await post(app, job), { status: 200, body: { id: 'q:mine', deduplicated: true } })
})

t.test('without a replica health fails and recommends what to do', async (t) => {
  const redis = await startRedis()
  const app = await startApp(redis, { DURABILITY_REPLICAS: '1', DURABILITY_TIMEOUT: '50' })
  t.teardown(async () => {
    await app.http.close()
    await redis.stop()
  })
  t.match(await post(app), { status: 503, body: { code: 'NOT_REPLICATED' } })
  const health = await app.http.inject('/health/redis')
  t.equal(health.statusCode, 503)
  t.match(
    health.json().recommendations.join('\n'),
    /DURABILITY_REPLICAS is 1 and Redis has 0: no job is acknowledged/,
  )
})
