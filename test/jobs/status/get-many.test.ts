/** `GET /jobs?ids=`, and what concurrent reads cost Redis. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

async function open(t: Test, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  t.teardown(() => app.http.close())
  const queueOf = (name: string) => new Queue(name, { connection: redis.client, prefix: app.prefix })
  const get = async (url: string, headers: Record<string, string> = {}) => {
    const answer = await app.http.inject({ url, headers })
    return { status: answer.statusCode, headers: answer.headers, text: answer.body, body: answer }
  }
  const reads = async () => (await get('/stats')).body.json().commandsSent.jobView ?? 0
  return { app, queueOf, get, reads }
}

/** How many jobs were read from Redis: each is measured once. */
async function jobsRead(): Promise<number> {
  const stats = await redis.client.info('commandstats')
  return Number(/^cmdstat_memory\|usage:calls=(\d+)/m.exec(stats)?.[1] ?? 0)
}

const keysOf = (count: number) => Array.from({ length: count }, (_, i) => `k${i}`)

async function fill(queue: Queue, keys: string[]): Promise<void> {
  await queue.addBulk(keys.map((jobId, i) => ({ name: 'n', data: { i }, opts: { jobId } })))
}

t.test('jobs by id come in the order of the ids, from any queue, null for a missing job', async (t) => {
  const { queueOf, get } = await open(t)
  await fill(queueOf('a'), ['1x', '2x'])
  await fill(queueOf('default'), ['3x'])
  const { status, body } = await get('/jobs?ids=a:2x,3x,a:none,nowhere:1x,a:1x,a:2x,..')
  t.equal(status, 200)
  const { jobs } = body.json()
  t.same(
    jobs.map((job: { id: string } | null) => job?.id ?? null),
    ['a:2x', 'default:3x', null, null, 'a:1x', 'a:2x', null],
  )
  const alone = await get('/jobs/a:2x')
  t.same(jobs[0], alone.body.json(), 'the same as from GET /jobs/:id')
  t.notOk('data' in jobs[0])
  t.match((await get('/jobs?ids=a:2x&include=data')).body.json().jobs, [{ data: { i: 1 } }])
})

t.test('two hundred jobs are one command, then none, and an unchanged response is 304', async (t) => {
  const { queueOf, get, reads } = await open(t)
  const queue = queueOf('q')
  const keys = keysOf(200)
  await fill(queue, keys)
  const before = await reads()
  const url = `/jobs?ids=${keys.map((key) => `q:${key}`).join()}`
  const cold = await get(url)
  t.equal(cold.body.json().jobs.length, 200)
  t.equal((await reads()) - before, 1)
  t.match(cold.headers, { 'cache-status': /fwd=miss/, 'retry-after': '1', etag: /^"/ })
  const hot = await get(url)
  t.equal(hot.text, cold.text)
  t.match(hot.headers, { 'cache-status': /hit; ttl=\d+$/ })
  const etag = `${cold.headers['etag']}`
  const same = await get(url, { 'if-none-match': etag })
  t.equal(same.status, 304)
  t.equal(same.text, '')
  t.equal((await reads()) - before, 1)
})

t.test('a change of one of two hundred jobs reads that job, not the others', async (t) => {
  const { queueOf, get } = await open(t)
  const queue = queueOf('q')
  const keys = keysOf(200)
  await fill(queue, keys)
  const url = `/jobs?ids=${keys.map((key) => `q:${key}`).join()}`
  await get(url)
  const counts: number[] = []
  // Where the machine stalls, events arrive late and all jobs are read again: so several changes are tried.
  for (let index = 0; index < 10 && !counts.some((count) => count <= 2); index++) {
    await eventually(async () => !`${(await get(url)).headers['cache-status']}`.includes('degraded'))
    const etag = `${(await get(url)).headers['etag']}`
    const before = await jobsRead()
    await queue.remove(`k${index}`)
    let changed = await get(url, { 'if-none-match': etag })
    await eventually(async () => {
      changed = await get(url, { 'if-none-match': etag })
      return changed.status !== 304
    })
    t.equal(changed.body.json().jobs[index], null)
    t.not(changed.headers['etag'], etag)
    counts.push((await jobsRead()) - before)
  }
  t.ok(
    counts.some((count) => count >= 1 && count <= 2),
    `jobs read: ${counts}`,
  )
})

t.test('uncached jobs of twenty queues are one command for each queue', async (t) => {
  const { queueOf, get, reads } = await open(t)
  const names = keysOf(20)
  for (const name of names) await fill(queueOf(name), ['x1', 'x2'])
  const before = await reads()
  const ids = names.flatMap((name) => [`${name}:x1`, `${name}:x2`])
  t.notOk((await get(`/jobs?ids=${ids}`)).body.json().jobs.includes(null))
  t.equal((await reads()) - before, 20)
})

t.test('more than two hundred ids, an empty list and wrong combinations are refused', async (t) => {
  const { get } = await open(t)
  const refused = async (query: string, pointer: string) =>
    t.match(
      (await get(`/jobs?${query}`)).body.json(),
      { status: 400, errors: [{ pointer, detail: /./ }] },
      query.slice(0, 40),
    )
  await refused(`ids=${keysOf(201)}`, '?ids')
  await refused('ids=', '?ids')
  await refused('ids=a&queue=q', '?queue')
  await refused('ids=a&state=waiting', '?state')
  await refused('ids=a&limit=5', '?limit')
  await refused('ids=a&cursor=x', '?cursor')
  await refused('queue=q&include=data', '?include')
})

t.test('ten thousand requests for one uncached job are one command', async (t) => {
  const { queueOf, get, reads } = await open(t)
  await fill(queueOf('q'), ['one'])
  const before = await reads()
  const answers = await Promise.all(Array.from({ length: 10_000 }, () => get('/jobs/q:one')))
  t.equal((await reads()) - before, 1)
  t.equal(new Set(answers.map(({ text }) => text)).size, 1)
  t.ok(answers.every(({ status }) => status === 200))
})

t.test('requests for a thousand different jobs at once are at most ten commands', async (t) => {
  const { queueOf, get, reads } = await open(t)
  const keys = keysOf(1_000)
  await fill(queueOf('q'), keys)
  const before = await reads()
  const answers = await Promise.all(keys.map((key) => get(`/jobs/q:${key}`)))
  const needed = (await reads()) - before
  t.ok(needed <= 10, `${needed} commands`)
  t.ok(answers.every(({ status, body }, i) => status === 200 && body.json().id === `q:k${i}`))
})

t.test('Cache-Control: no-cache bypasses the cache, except where fetch() adds it', async (t) => {
  const { queueOf, get, reads } = await open(t)
  await fill(queueOf('q'), ['one'])
  const { headers } = await get('/jobs/q:one')
  const before = await reads()
  const through = await get('/jobs/q:one', { 'cache-control': 'no-cache' })
  t.match(through.headers['cache-status'], /fwd=request/)
  t.match(
    (await get('/jobs?ids=q:one', { 'cache-control': 'no-cache' })).headers['cache-status'],
    /fwd=request/,
  )
  t.equal((await reads()) - before, 2)
  const polled = await get('/jobs/q:one', {
    'if-none-match': `${headers['etag']}`,
    'cache-control': 'no-cache',
    pragma: 'no-cache',
  })
  t.equal(polled.status, 304)
  t.equal((await reads()) - before, 2)
})

t.test('an idle service sends no commands', async (t) => {
  const { app } = await open(t)
  const calls = async () =>
    [...(await redis.client.info('commandstats')).matchAll(/^cmdstat_(\w+)\S*:calls=(\d+)/gm)]
      .filter(([, name]) => name === 'xread' || name === 'evalsha')
      .reduce((sum, [, , count]) => sum + Number(count), 0)
  const before = await calls()
  await new Promise((resolve) => setTimeout(resolve, 2_500))
  t.equal((await calls()) - before, 0)
  t.match((await app.http.inject('/health/redis')).json().events, { status: 'idle', streams: 0 })
})
