/**
 * The whole service on a Redis that requires TLS and a client certificate. It works with the right files.
 * With wrong ones no command is sent, no response is a 500, and the operator sees the reason.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { Worker } from 'bullmq'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createApp } from '../../../src/app.ts'
import { computeConnectionBudget } from '../../../src/redis/connection/connection-budget.ts'
import { createRedisConnections } from '../../../src/redis/connection/connections.ts'
import { eventually, type TestApp, testConfig, untilReady } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'
import { follow, listen } from '../../helpers/sse.ts'
import { callsByCommand } from '../../helpers/streams.ts'
import { createAuthority, createFolder, type Pair, startTlsRedis } from '../../helpers/tls-redis.ts'

const authority = await createAuthority()
const otherAuthority = await createAuthority('Another authority')
const client = await authority.issue('sluice')
const redis = await startTlsRedis(t, authority, await authority.issue('127.0.0.1'))
const write = await createFolder(t)

const files = {
  REDIS_TLS_CA: await write('ca.pem', authority.cert),
  REDIS_TLS_CERT: await write('client.pem', client.cert),
  REDIS_TLS_KEY: await write('client.key', client.key),
}

const named = await startTlsRedis(t, authority, await authority.issue('redis.example.com'))
const foreign = await startTlsRedis(t, authority, await otherAuthority.issue('127.0.0.1'))
const { REDIS_TLS_CA } = files
const unknown = await otherAuthority.issue('sluice')

/** A service that may never become ready. */
async function open(t: Test, url: string, settings: Record<string, string>): Promise<TestApp> {
  const config = testConfig({ REDIS_URL: url, ...settings })
  const app = await createApp(config, { url }, pino({ level: 'silent' }))
  t.teardown(() => app.http.close())
  await app.http.ready()
  return { ...app, config, prefix: config.QUEUE_PREFIX }
}

const post = (app: TestApp, url: string, payload: object) =>
  app.http.inject({ method: 'POST', url, headers: { 'content-type': 'application/json' }, payload })

t.test('with the CA and a client certificate the whole service works over rediss://', async (t) => {
  const app = await open(t, `rediss://127.0.0.1:${redis.port}`, files)
  await untilReady(app)
  const worker = new Worker('q', async () => ({ sent: true }), {
    connection: { path: redis.socket },
    prefix: app.prefix,
    autorun: false,
  })
  t.teardown(() => worker.close())
  const added = await post(app, '/jobs', { queue: 'q', name: 'n', opts: { jobId: 'a' } })
  t.equal(added.statusCode, 201)
  t.match((await app.http.inject('/jobs/q:a')).json(), { state: 'waiting' })
  const stream = follow(t, `${await listen(app)}/jobs/q:a/events`)
  await stream.next('snapshot')
  worker.run()
  await eventually(() => stream.received.some(({ data }) => data['state'] === 'completed'))
  t.match((await app.http.inject('/jobs/q:a')).json(), { state: 'completed', result: { sent: true } })
  const big = 'x'.repeat(500_000)
  t.equal(
    (await post(app, '/jobs', { queue: 'q2', name: 'n', data: big, opts: { jobId: 'b' } })).statusCode,
    201,
  )
  t.equal((await app.http.inject('/jobs/q2:b?include=data')).json().data, big)
  const health = await app.http.inject('/health/redis')
  t.equal(health.statusCode, 200)
  t.match(health.json(), { error: null, events: { status: 'live' }, connections: { errors: 0 } })
  const list = String(await redis.client.call('CLIENT', 'LIST'))
  const sockets = list.split('\n').filter((line) => / name=sluice:/.test(line))
  t.equal(sockets.length, 4)
  for (const line of sockets) t.match(line, ` laddr=127.0.0.1:${redis.port} `)
})

const refusals: Record<string, { server: typeof redis; settings: Record<string, string>; why: RegExp }> = {
  'without a client certificate': {
    server: redis,
    settings: { REDIS_TLS_CA },
    why: /^TLS: tlsv13 alert certificate required$/,
  },
  'with a client certificate of an unknown CA': {
    server: redis,
    settings: {
      REDIS_TLS_CA,
      REDIS_TLS_CERT: await write('unknown.pem', unknown.cert),
      REDIS_TLS_KEY: await write('unknown.key', unknown.key),
    },
    why: /^TLS: tlsv1 alert unknown ca$/,
  },
  'with a server of an unknown CA': {
    server: foreign,
    settings: files,
    why: /^unable to verify the first certificate$/,
  },
  'without the CA of the server': {
    server: redis,
    settings: { REDIS_TLS_CERT: files.REDIS_TLS_CERT, REDIS_TLS_KEY: files.REDIS_TLS_KEY },
    why: /^self-signed certificate in certificate chain$/,
  },
  'with a server of another name': {
    server: named,
    settings: files,
    why: /^Hostname\/IP does not match certificate's altnames: IP: 127\.0\.0\.1 is not in the cert's list/,
  },
}
for (const [name, { server, settings, why }] of Object.entries(refusals)) {
  t.test(
    `${name} no command is sent, every response is a 503 and the operator sees the reason`,
    async (t) => {
      const before = await callsByCommand(server.client)
      const app = await open(t, `rediss://user:secret@127.0.0.1:${server.port}`, settings)
      const reason = async () => (await app.http.inject('/health/redis')).json().connections.lastError
      await eventually(async () => why.test(await reason()))
      const job = { queue: 'q', name: 'n' }
      for (const url of [
        '/jobs/q:a',
        '/jobs?ids=q:a',
        '/jobs?queue=q',
        '/jobs/q:a/events',
        '/queues/q/events',
      ]) {
        const { statusCode, body } = await app.http.inject(url)
        t.equal(statusCode, 503, url)
        t.match(JSON.parse(body), { code: 'REDIS_UNAVAILABLE' })
      }
      for (const [url, body] of [
        ['/jobs', job],
        ['/jobs/batch', { jobs: [job] }],
      ] as const) {
        const answer = await post(app, url, body)
        t.equal(answer.statusCode, 503, url)
        t.match(answer.json(), { code: 'REDIS_UNAVAILABLE', outcome: 'not_executed' })
      }
      for (const url of ['/health', '/health/ready', '/health/redis']) {
        const { statusCode, body } = await app.http.inject(url)
        t.equal(statusCode, 503, url)
        t.notMatch(body, 'secret')
      }
      t.match(await reason(), why, 'the failed requests do not hide the reason')
      t.equal((await app.http.inject('/health/live')).statusCode, 200)
      const after = await callsByCommand(server.client)
      t.same({ ...after, info: 0 }, { ...before, info: 0 }, 'no command has reached the server')
    },
  )
}

t.test('a rejected server that sends an alert does not crash the process', async (t) => {
  const config = testConfig({ REDIS_URL: `rediss://127.0.0.1:${named.port}`, ...files })
  const log = pino({ level: 'silent' })
  const connections = createRedisConnections(
    config,
    { url: config.REDIS_URL! },
    computeConnectionBudget(config, 1),
    log,
  )
  t.teardown(() => connections.close())
  const { client } = connections.admin
  const [error] = await once(client, 'error')
  t.match(error.message, refusals['with a server of another name']!.why)
  // The server's alert rarely arrives before the socket closes; the socket then emits a second error.
  t.doesNotThrow(() => client.stream.emit('error', new Error('tlsv1 alert decode error')))
})

t.test('NODE_TLS_REJECT_UNAUTHORIZED=0 does not disable verification', async (t) => {
  t.teardown(() => {
    delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']
  })
  process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = '0'
  const app = await open(t, `rediss://127.0.0.1:${foreign.port}`, files)
  await eventually(async () => {
    const { connections } = (await app.http.inject('/health/redis')).json()
    return connections.lastError === 'unable to verify the first certificate'
  })
  t.equal((await app.http.inject('/health/ready')).statusCode, 503)
})

/** A TLS proxy in front of a plain Redis. It records the certificate and the server name of each client. */
async function startTlsProxy(t: Test, pair: Pair, ca: string[]) {
  const plain = await startRedis()
  const seen: { by: string; as: string | false }[] = []
  const sockets = new Set<TLSSocket>()
  const server = createServer({ ...pair, ca, requestCert: true, rejectUnauthorized: true }, (socket) => {
    const { servername } = socket as TLSSocket & { servername: string | false }
    seen.push({ by: String(socket.getPeerCertificate().subject.CN), as: servername })
    sockets.add(socket)
    const upstream = connect(plain.socket)
    socket.pipe(upstream).pipe(socket)
    for (const end of [socket, upstream]) end.on('error', () => {})
    socket.on('close', () => {
      sockets.delete(socket)
      upstream.destroy()
    })
  })
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await plain.stop()
  })
  const { port } = server.address() as { port: number }
  return {
    port,
    /** Breaks every connection, and resolves with the certificate names of the new ones. */
    async reconnected(): Promise<string[]> {
      seen.length = 0
      for (const socket of sockets) socket.destroy()
      await eventually(() => seen.length === 4)
      return [...new Set(seen.map(({ by }) => by))]
    },
    seen,
  }
}

t.test('replaced certificates take effect at the next connection, once both files match', async (t) => {
  const next = await createAuthority('The next authority')
  const proxy = await startTlsProxy(t, await authority.issue('localhost'), [authority.cert, next.cert])
  const writeClient = await createFolder(t)
  const settings = {
    REDIS_TLS_CA,
    REDIS_TLS_CERT: await writeClient('client.pem', client.cert),
    REDIS_TLS_KEY: await writeClient('client.key', client.key),
  }
  const app = await open(t, `rediss://localhost:${proxy.port}`, settings)
  await untilReady(app)
  t.same(new Set(proxy.seen.map(({ by, as }) => `${by} at ${as}`)), new Set(['sluice at localhost']))

  const renewed = await next.issue('sluice renewed')
  await writeClient('client.pem', renewed.cert)
  t.same(await proxy.reconnected(), ['sluice'], 'a certificate without its key')
  await writeClient('client.key', 'half a ke')
  t.same(await proxy.reconnected(), ['sluice'], 'a key that is partly written')
  await writeClient('client.key', renewed.key)
  t.same(await proxy.reconnected(), ['sluice renewed'])
  await untilReady(app)
  t.equal((await post(app, '/jobs', { queue: 'q', name: 'n' })).statusCode, 201)
})

t.test('an unusable file ends the start with one message', async (t) => {
  const start = (settings: Record<string, string>) =>
    open(t, 'rediss://127.0.0.1:1', { ...files, ...settings })
  await t.rejects(start({ REDIS_TLS_CA: '/no/such/file' }), {
    message: "REDIS_TLS_CA cannot be read: ENOENT: no such file or directory, open '/no/such/file'",
  })
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/server.ts'], {
    env: {
      PATH: process.env['PATH'] ?? '',
      NODE_ENV: 'production',
      PORT: '0',
      SECRET: 's'.repeat(32),
      ...files,
      REDIS_URL: 'rediss://user:secret@127.0.0.1:1',
      REDIS_TLS_KEY: files.REDIS_TLS_CERT,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (text += data))
  t.equal((await once(child, 'close'))[0], 1)
  const [line, ...more] = text.trim().split('\n')
  t.same(more, [])
  t.match(JSON.parse(line!), {
    level: 60,
    msg: `REDIS_TLS_KEY (${files.REDIS_TLS_CERT}) does not contain an unencrypted private key in PEM format`,
  })
})
