/** Routes that need no key cost Redis next to nothing, however many requests arrive, and still notice that Redis stops. */
import t from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startAppWithKeys } from '../helpers/keys.ts'
import { startRedis } from '../helpers/redis.ts'

const REQUESTS = 1_000
/** Two orders of magnitude below one command per request. The stream reader sends some of its own meanwhile. */
const FEW_COMMANDS = 40

const redis = await startRedis()
t.teardown(() => redis.stop())

/** Calls of all commands since the last reset, also of those that scripts call. */
async function callsOf(send: () => Promise<unknown>): Promise<number> {
  await redis.client.config('RESETSTAT')
  await send()
  const info = await redis.client.info('commandstats')
  return [...info.matchAll(/:calls=(\d+)/g)].reduce((sum, [, calls]) => sum + Number(calls), 0)
}

t.test('1,000 requests at once to any route without a key cost Redis a few commands', async (t) => {
  const { app } = await startAppWithKeys(
    t,
    redis,
    { all: { scopes: ['read', 'manage'] } },
    { HEALTH_TTL: '0' },
  )
  const { paths } = (await app.http.inject('/openapi.json')).json()
  const keyless = Object.keys(paths).filter((path) => paths[path].get && !paths[path].get.security)
  t.match(new Set(keyless), new Set(['/health', '/health/live', '/health/ready', '/openapi.json']))
  const documentation = ['/docs', '/docs/json', '/docs/yaml', '/docs/static/swagger-ui.css']
  const refused = ['/stats', '/health/redis', '/jobs/q:1', '/jobs?queue=q', '/nowhere']
  const urls = [...keyless.map((path) => path.replace('{name}', 'overloaded')), ...documentation, ...refused]
  for (const url of urls) {
    let statuses: number[] = []
    const calls = await callsOf(async () => {
      // Documentation is large, and sends nothing.
      const length = documentation.includes(url) || url === '/openapi.json' ? REQUESTS / 10 : REQUESTS
      const responses = await Promise.all(Array.from({ length }, () => app.http.inject(url)))
      statuses = [...new Set(responses.map(({ statusCode }) => statusCode))]
    })
    t.ok(calls <= FEW_COMMANDS, `${url} costs ${calls} commands`)
    t.same(statuses, [url === '/nowhere' ? 404 : refused.includes(url) ? 401 : 200], url)
  }
})

t.test('a thousand requests one after the other share their PINGs and measurements too', async (t) => {
  const { app } = await startAppWithKeys(t, redis, { all: { scopes: ['read'] } }, { HEALTH_TTL: '0' })
  for (const url of ['/health/ready', '/health']) {
    let windows = 0
    const calls = await callsOf(async () => {
      const startedAt = performance.now()
      for (let sent = 0; sent < REQUESTS; sent++) await app.http.inject(url)
      windows = Math.ceil((performance.now() - startedAt) / 250)
    })
    t.ok(calls <= FEW_COMMANDS + windows * 10, `${url} costs ${calls} commands in ${windows} windows`)
  }
})

t.test('details for operators are measured once for the requests at the same time', async (t) => {
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  const calls = await callsOf(() =>
    Promise.all(Array.from({ length: REQUESTS }, () => app.http.inject('/health/redis'))),
  )
  t.ok(calls <= FEW_COMMANDS, `${calls} commands`)
})

t.test('a Redis that stops responding is noticed once a PING has timed out', async (t) => {
  const own = await startRedis()
  t.teardown(() => own.stop())
  const app = await startApp(own, { REDIS_ADMIN_TIMEOUT: '300' })
  t.teardown(() => app.http.close())
  const pid = Number(/process_id:(\d+)/.exec(await own.client.info('server'))![1])
  t.equal((await app.http.inject('/health/ready')).statusCode, 200)
  process.kill(pid, 'SIGSTOP')
  const stoppedAt = performance.now()
  try {
    await eventually(async () => (await app.http.inject('/health/ready')).statusCode === 503)
    const noticedMs = performance.now() - stoppedAt
    t.ok(noticedMs < 250 + 300 + 500, `noticed after ${noticedMs} ms`)
    const responses = await Promise.all(
      Array.from({ length: 50 }, async () => (await app.http.inject('/health/ready')).statusCode),
    )
    t.same(new Set(responses), new Set([503]))
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  await eventually(async () => (await app.http.inject('/health/ready')).statusCode === 200)
})
