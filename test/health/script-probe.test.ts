/** Readiness depends on whether Redis runs scripts, and probes of it cost next to no command. */
import t from 'tap'
import { SluiceError } from '../../src/errors.ts'
import { createScriptProbe } from '../../src/health/script-probe.ts'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { open, post, startServer } from '../redis/acl/server.ts'

const ready = async (app: {
  http: { inject(url: string): Promise<{ statusCode: number; body: string }> }
}) => {
  const { statusCode, body } = await app.http.inject('/health/ready')
  return { status: statusCode, reason: JSON.parse(body).reason as string | null }
}
const REASON =
  /^Redis refuses to run scripts, so no job is accepted\. Allow its user EVALSHA and EVAL \(\+evalsha \+eval/

t.test('a Redis user that may not run scripts makes the service not ready, until it may', async (t) => {
  for (const denied of [['-evalsha'], ['-eval', '-evalsha'], ['-eval']]) {
    const server = await startServer(t)
    await server.admin.call('ACL', 'SETUSER', 'sluice', ...denied)
    const app = await open(t, server.tcp, { HEALTH_TTL: '0' })
    await eventually(async () => /refuses to run/.test((await ready(app)).reason ?? ''))
    t.match(await ready(app), { status: 503, reason: REASON }, denied.join(' '))
    t.notMatch(
      (await ready(app)).reason,
      'sluice',
      'the name of the user stays hidden from callers without a key',
    )
    const health = await app.http.inject('/health')
    t.equal(health.statusCode, 503)
    t.match(health.json(), { status: 'fail', redis: { reachable: true }, recommendations: [REASON] })
    t.match(await post(app, '/jobs', { queue: 'q', name: 'n' }), {
      status: 503,
      body: { code: 'REDIS_DENIED' },
    })
    await server.admin.call('ACL', 'SETUSER', 'sluice', '+eval', '+evalsha')
    await eventually(async () => (await ready(app)).status === 200)
    t.match(await post(app, '/jobs', { queue: 'q', name: 'n' }), { status: 201 })
  }
})

t.test('a permission that is withdrawn from a running service is noticed', async (t) => {
  const server = await startServer(t)
  const app = await open(t, server.tcp)
  await eventually(async () => (await ready(app)).status === 200)
  await server.admin.call('ACL', 'SETUSER', 'sluice', '-evalsha')
  await eventually(async () => (await ready(app)).status === 503, 20_000)
  t.match(await ready(app), { reason: REASON })
})

t.test('a server whose EVALSHA is renamed makes the service not ready', async (t) => {
  const redis = await startRedis(['--rename-command', 'EVALSHA', ''])
  t.teardown(() => redis.stop())
  const app = await open(t, `unix://${redis.socket}`)
  await eventually(async () => /refuses to run/.test((await ready(app)).reason ?? ''))
  t.match(await ready(app), { status: 503, reason: REASON })
})

t.test('a hundred probes of readiness run one script', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  const probes = async () => (await app.http.inject('/stats')).json().commandsSent.probeScripts as number
  const before = await probes()
  await Promise.all(Array.from({ length: 100 }, () => ready(app)))
  t.ok((await probes()) - before <= 1)
})

function counted() {
  let nowMs = 0
  let error: Error | undefined
  let runs = 0
  let changed = () => {}
  const gateway = {
    onQueue: async () => {
      runs++
      if (error) throw error
    },
  }
  const connections = {
    onChange(listener: () => void) {
      changed = listener
    },
  }
  const probe = createScriptProbe(gateway as never, connections, () => nowMs)
  return {
    ...probe,
    runs: () => runs,
    fail: (next: Error | undefined) => {
      error = next
    },
    advance: (ms: number) => {
      nowMs += ms
    },
    change: () => changed(),
  }
}

t.test(
  'a success holds for ten seconds, a refusal for one, and neither beyond a change of a connection',
  async (t) => {
    const { problem, runs, fail, advance, change } = counted()
    t.same([await problem(), await problem(), runs()], [undefined, undefined, 1])
    advance(9_999)
    await problem()
    t.equal(runs(), 1)
    advance(1)
    fail(new SluiceError('REDIS_DENIED'))
    t.match(await problem(), REASON)
    t.match(await problem(), REASON)
    t.equal(runs(), 2)
    advance(1_000)
    fail(undefined)
    t.equal(await problem(), undefined)
    t.equal(runs(), 3)
    change()
    await problem()
    t.equal(runs(), 4)
  },
)

t.test(
  'a Redis that fails for another reason is reported with that reason, and the failure is not kept',
  async (t) => {
    const { problem, runs, fail } = counted()
    fail(new SluiceError('REDIS_TIMEOUT'))
    await t.rejects(problem(), { code: 'REDIS_TIMEOUT' })
    fail(undefined)
    t.equal(await problem(), undefined)
    t.equal(runs(), 2)
  },
)
