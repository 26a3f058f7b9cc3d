/** Features: which can be left out, and that one that is left out costs nothing. */
import t, { type Test } from 'tap'
import { featureDefinitions } from '../src/app.ts'
import { ConfigError } from '../src/config/load.ts'
import { ConfigSchema } from '../src/config/schema.ts'
import { selectFeatures } from '../src/feature.ts'
import { collectStats } from '../src/health/feature-stats.ts'
import { startApp } from './helpers/app.ts'
import { startRedis } from './helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const optional = featureDefinitions.filter(({ isOptional }) => isOptional).map(({ name }) => name)

/** One path that exists only with the feature. */
const paths: Record<string, string[]> = {
  events: ['/jobs/{id}/events', '/queues/{queue}/events'],
  leases: ['/queues/{queue}/leases', '/leases/settle', '/leases/extend'],
  webhooks: ['/queues/{queue}/subscription', '/queues/{queue}/subscription/secrets'],
}

async function open(t: Test, disabled: string) {
  const app = await startApp(redis, { FEATURES_DISABLED: disabled, HEALTH_TTL: '0' })
  t.teardown(() => app.http.close())
  const get = async (url: string) => (await app.http.inject(url)).json()
  const documentedPaths = async () => Object.keys((await get('/openapi.json')).paths)
  return { app, get, documentedPaths }
}

t.test(
  'every optional feature is known here, and named in the description of FEATURES_DISABLED',
  async (t) => {
    t.same(Object.keys(paths).sort(), [...optional].sort())
    const { description = '' } = ConfigSchema.properties.FEATURES_DISABLED as { description?: string }
    for (const name of optional) t.match(description, new RegExp(`\\b${name}\\b`))
    t.equal(new Set(featureDefinitions.map(({ name }) => name)).size, featureDefinitions.length)
  },
)

t.test('by default every feature is enabled', async (t) => {
  const { get, documentedPaths } = await open(t, '')
  const documented = await documentedPaths()
  for (const path of Object.values(paths).flat()) t.ok(documented.includes(path), path)
  t.same(Object.keys(await get('/stats')).sort(), [
    ...['batching', 'cache', 'commandsSent', 'connections', 'events', 'knownQueues'],
    ...['malformedJobs', 'openQueues', 'pool'],
    ...['reads', 'refused', 'requestsByKey', 'semaphore', 'waiting', 'waitingWorkers', 'waits', 'webhooks'],
  ])
  t.same(Object.keys(await get('/health')).sort(), [
    ...[
      'batching',
      'cache',
      'cached',
      'checkedAt',
      'pool',
      'queues',
      'queuesKnown',
      'queuesOmitted',
      'recommendations',
      'redis',
    ],
    ...['responseTimeMs', 'status', 'uptimeS', 'version'],
  ])
})

for (const name of Object.keys(paths)) {
  t.test(`without ${name} its routes are 404 and undocumented, and all others stay`, async (t) => {
    const { app, documentedPaths } = await open(t, name)
    const documented = await documentedPaths()
    const all = Object.entries(paths).flatMap(([owner, own]) => own.map((path) => ({ owner, path })))
    for (const { owner, path } of all) t.equal(documented.includes(path), owner !== name, path)
    for (const path of paths[name]!) {
      const url = path.replace('{id}', 'emails:1').replace('{queue}', 'emails')
      for (const method of ['GET', 'POST', 'PUT', 'DELETE'] as const) {
        const response = await app.http.inject({ method, url })
        t.match([response.statusCode, response.json().code], [404, 'ROUTE_NOT_FOUND'], `${method} ${url}`)
      }
    }
  })
}

t.test('without webhooks no subscription is read, and /stats has no webhooks', async (t) => {
  const enabled = await open(t, '')
  t.ok((await enabled.get('/stats')).commandsSent.readSubscriptions > 0, 'with webhooks they are read')
  const { get } = await open(t, 'webhooks')
  await get('/health')
  const stats = await get('/stats')
  t.equal(stats.commandsSent.readSubscriptions, undefined)
  t.notOk('webhooks' in stats)
  t.ok('waitingWorkers' in stats)
  t.notOk('webhooks' in (await get('/openapi.json')).components.schemas.Stats.properties)
})

t.test('without event streams there is no heartbeat timer', async (t) => {
  const heartbeats: number[] = []
  const { setInterval: original } = globalThis
  globalThis.setInterval = ((callback: () => void, ms: number) => {
    if (ms === 12_345) heartbeats.push(ms)
    return original(callback, ms)
  }) as typeof setInterval
  t.teardown(() => {
    globalThis.setInterval = original
  })
  const settings = { SSE_HEARTBEAT: '12345' }
  const without = await startApp(redis, { ...settings, FEATURES_DISABLED: 'events' })
  t.teardown(() => without.http.close())
  t.same(heartbeats, [])
  const enabled = await startApp(redis, settings)
  t.teardown(() => enabled.http.close())
  t.same(heartbeats, [12_345])
})

t.test('without any optional feature only the readiness checks of this test and TIME are sent', async (t) => {
  const { get } = await open(t, optional.join())
  t.same(Object.keys((await get('/stats')).commandsSent).sort(), ['ping', 'probeScripts', 'time'])
})

t.test(
  'a feature that is unknown or required cannot be disabled, and the message lists the choices',
  async (t) => {
    const problems = (disabled: string) => {
      try {
        selectFeatures(featureDefinitions, disabled)
      } catch (error) {
        if (error instanceof ConfigError) return error.problems
      }
      throw new Error(`${disabled} was accepted`)
    }
    const choices = 'Choose from: events, leases, webhooks'
    t.same(problems('webhook'), [`FEATURES_DISABLED: there is no feature webhook. ${choices}`])
    t.same(problems('health'), [`FEATURES_DISABLED: health cannot be disabled. ${choices}`])
    t.equal(problems('status,events,x').length, 2, 'all at once')
    await t.rejects(startApp(redis, { FEATURES_DISABLED: 'all' }), { name: 'ConfigError' })
  },
)

t.test(
  'names may be separated by commas and spaces, and are left out in the order of the list',
  async (t) => {
    const named = (disabled: string) => selectFeatures(featureDefinitions, disabled).map(({ name }) => name)
    t.same(named(' webhooks , events,'), ['enqueue', 'status', 'leases', 'health'])
    t.same(named(''), ['enqueue', 'status', 'events', 'leases', 'webhooks', 'health'])
  },
)

t.test('two features cannot provide the same stat', async (t) => {
  const feature = { stats: { jobs: { schema: {}, read: () => 1 } } }
  t.throws(() => collectStats([feature, feature]), { message: /Two features provide the stat jobs/ })
})
