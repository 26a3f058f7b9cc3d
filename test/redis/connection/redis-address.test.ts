/** The options of ioredis for REDIS_URL and REDIS_TLS_*. With real servers: tls.test.ts, acl.test.ts. */
import { pino } from 'pino'
import t from 'tap'
import { connectionTarget, type TlsSettings } from '../../../src/redis/connection/redis-address.ts'
import { createAuthority, createFolder } from '../../helpers/tls-redis.ts'

const log = pino({ level: 'silent' })
const target = (url: string, settings: TlsSettings = {}) => connectionTarget(settings, { url }, log)

t.test('an embedded server is addressed by its socket only', async (t) => {
  t.same(connectionTarget({}, { socket: '/a/redis.sock' }, log), {
    url: undefined,
    options: { path: '/a/redis.sock' },
  })
})

t.test('a unix:// URL may contain a user and password, which are not part of the path', async (t) => {
  for (const [url, options] of Object.entries({
    'unix:///run/redis.sock': { path: '/run/redis.sock' },
    'unix://data/redis.sock': { path: 'data/redis.sock' },
    'unix:///run/a@b:c/redis.sock': { path: '/run/a@b:c/redis.sock' },
    'unix://sluice:pass@/run/redis.sock': { path: '/run/redis.sock', username: 'sluice', password: 'pass' },
    'unix://:pass@/run/redis.sock': { path: '/run/redis.sock', password: 'pass' },
    'unix://a%40b:c%3Ad%2F@/run/redis.sock': { path: '/run/redis.sock', username: 'a@b', password: 'c:d/' },
  })) {
    t.same(target(url), { url: undefined, options }, url)
  }
})

t.test('an invalid URL throws a message without secrets', async (t) => {
  for (const url of [
    'redis://u:hunter2%@h',
    'unix://u:hunter2%@/p',
    'redis://u:hunter2/@h:x',
    'rediss://:p@',
  ]) {
    t.throws(() => target(url), { message: /^REDIS_URL cannot be parsed: percent-encode (?!.*hunter2)/ }, url)
  }
})

t.test('rediss:// verifies the server, and sends its name if it has one', async (t) => {
  for (const [url, servername] of Object.entries({
    'rediss://redis.example.com:6380/1': 'redis.example.com',
    'rediss://user:pass@localhost': 'localhost',
    'rediss://10.0.0.1': undefined,
    'rediss://[::1]:6380': undefined,
    'rediss://h?tls=false&family=6': 'h',
  })) {
    const { url: rest, options } = target(url)
    const tls = options.tls as { servername?: string; rejectUnauthorized: boolean; secureContext: object }
    t.match(tls, { rejectUnauthorized: true, secureContext: Object }, url)
    t.equal(tls.servername, servername, url)
    t.notMatch(rest, /[?&]tls=/, 'the URL cannot override the TLS options')
  }
  t.match(target('rediss://h?tls=false&family=6').url, /[?]family=6$/)
  t.same(target('redis://h:1').options, {}, 'redis:// has no TLS')
})

t.test('each file is checked for the right content', async (t) => {
  const write = await createFolder(t)
  const authority = await createAuthority()
  const { cert, key } = await authority.issue('a')
  const other = await authority.issue('b')
  const good = {
    REDIS_TLS_CA: await write('ca.pem', authority.cert),
    REDIS_TLS_CERT: await write('cert.pem', cert),
    REDIS_TLS_KEY: await write('key.pem', key),
  }
  t.ok(target('rediss://h', good))
  const empty = await write('empty.pem', '')
  const cases: [TlsSettings, RegExp][] = [
    [{ REDIS_TLS_CA: empty }, /^REDIS_TLS_CA \(.*empty\.pem\) does not contain a certificate in PEM format$/],
    [{ REDIS_TLS_CERT: good.REDIS_TLS_KEY }, /^REDIS_TLS_CERT \(.*\) does not contain a certificate/],
    [
      { REDIS_TLS_KEY: good.REDIS_TLS_CERT },
      /^REDIS_TLS_KEY \(.*\) does not contain an unencrypted private key/,
    ],
    [{ REDIS_TLS_KEY: '/no/such' }, /^REDIS_TLS_KEY cannot be read: ENOENT/],
    [{ REDIS_TLS_KEY: await write('other.pem', other.key) }, /^REDIS_TLS_KEY does not match REDIS_TLS_CERT$/],
  ]
  for (const [wrong, message] of cases) {
    t.throws(() => target('rediss://h', { ...good, ...wrong }), { message }, String(message))
  }
})
