/** Which hosts a service without API keys serves, on every route. */
import t from 'tap'
import { createHostMatcher } from '../../src/http/host-check.ts'
import { startApp } from '../helpers/app.ts'
import { startAppWithKeys } from '../helpers/keys.ts'
import { openRawClient } from '../helpers/raw-client.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

const LOOPBACK = [
  'localhost',
  'LocalHost:3000',
  'localhost.',
  'a.b.localhost',
  '127.0.0.1:3000',
  '127.9.9.9',
  '[::1]:3000',
]
const REBINDING = [
  ...[
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.nip.io',
    '127.evil',
    'evillocalhost',
    'x',
    '[::1',
    '',
    ' ',
  ],
  ...['localhost:3000@evil.example', 'evil.example:80:80', '127.1', '2130706433', '0x7f.0.0.1'],
]
const ADDRESSES = ['10.1.2.3:3000', '[fd00::1]', '192.168.0.9']

t.test('loopback names and addresses only, unless ALLOW_ANONYMOUS opens the service', async (t) => {
  const strict = createHostMatcher('', false)
  for (const host of LOOPBACK) t.ok(strict(host), host)
  for (const host of [...REBINDING, ...ADDRESSES]) t.notOk(strict(host), host)
  const open = createHostMatcher('', true)
  for (const host of [...LOOPBACK, ...ADDRESSES, 'sluice:3000', 'x']) t.ok(open(host), host)
  for (const host of [
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.nip.io',
    'localhost:1@evil.example',
    '',
  ])
    t.notOk(open(host), host)
})

t.test('ALLOWED_HOSTS names hosts, everything below a name, or every host', async (t) => {
  const some = createHostMatcher(' Sluice.internal:3000, *.example.com ,', false)
  for (const host of [
    'sluice.internal',
    'SLUICE.INTERNAL:8080',
    'a.example.com',
    'b.a.example.com:1',
    'localhost',
  ])
    t.ok(some(host), host)
  for (const host of ['example.com', 'badexample.com', 'a.sluice.internal', '.example.com', '10.1.2.3'])
    t.notOk(some(host), host)
  t.ok(createHostMatcher('*', false)('anything.example'))
})

t.test(
  'a service without keys refuses other hosts on every route, documentation included, except probes',
  async (t) => {
    const app = await startApp(redis, { ALLOWED_HOSTS: 'sluice.internal' })
    t.teardown(() => app.http.close())
    const get = (url: string, host: string, method: 'GET' | 'POST' = 'GET') =>
      app.http.inject({ method, url, headers: { host } })
    for (const url of [
      '/jobs/q:1',
      '/jobs?queue=q',
      '/docs',
      '/docs/json',
      '/openapi.json',
      '/health',
      '/stats',
      '/nowhere',
    ]) {
      const refused = await get(url, 'evil.example')
      t.equal(refused.statusCode, 421, url)
      t.match(refused.json(), { code: 'MISDIRECTED_REQUEST', retryable: false, detail: /ALLOWED_HOSTS/ }, url)
      t.not((await get(url, 'localhost:3000')).statusCode, 421, url)
      t.not((await get(url, 'sluice.internal')).statusCode, 421, url)
    }
    t.equal((await get('/jobs', 'evil.example', 'POST')).statusCode, 421)
    for (const probe of ['/health/live', '/health/ready'])
      t.equal((await get(probe, 'node.example')).statusCode, 200, probe)
    t.equal((await get('/stats', 'localhost')).json().refused.MISDIRECTED_REQUEST, 9, 'counted')
  },
)

t.test('with keys any host is served', async (t) => {
  const { app, secrets } = await startAppWithKeys(t, redis, { a: { scopes: ['read'] } })
  const headers = { host: 'sluice.example', authorization: `Bearer ${secrets.a}` }
  t.equal((await app.http.inject({ url: '/jobs/q:1', headers })).statusCode, 404)
})

t.test('of two Hosts the first counts, and a request of HTTP/1.0 needs none', async (t) => {
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.http.server.address() as { port: number }
  const statusOf = async (lines: string[]) => {
    const { socket, text } = await openRawClient(t, port)
    socket.write(`${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`)
    await new Promise((resolve) => socket.once('close', resolve))
    return Number(/^HTTP\/1\.1 (\d+)/.exec(text())?.[1])
  }
  t.equal(await statusOf(['GET /stats HTTP/1.1', 'Host: evil.example', 'Host: localhost']), 421)
  t.equal(await statusOf(['GET /stats HTTP/1.0']), 200)
  t.equal(await statusOf(['GET /stats HTTP/1.1']), 400)
})
