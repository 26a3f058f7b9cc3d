/**
 * F5: searches all logs and responses, produced by as many kinds of errors as possible, for secrets: the Redis password,
 * API keys and job data.
 */
import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { HttpResponse, Request } from '../clients.ts'
import type { RedisServer, Service } from '../processes.ts'
import type { Finding, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { until } from '../timing.ts'

export const secretLeaks: Scenario = {
  id: 'F5',
  fault: 'errors of many kinds, with secrets in URL, headers and data; then all output is searched',
  run: (testbed) => search(testbed, () => undefined),
  controls: [
    {
      what: 'a client that sends its data as X-Request-Id, which is logged and echoed',
      misses: 'secrets found',
      run: (testbed) => search(testbed, ({ data }) => data),
    },
  ],
}

interface Markers {
  password: string
  /** Created with `npm run key`. */
  apiKey: string
  /** Never created. */
  wrongKey: string
  data: string
  secret: string
}

/** `requestId`: what a careless client sends as X-Request-Id. */
async function search(
  testbed: Testbed,
  requestId: (markers: Markers) => string | undefined,
): Promise<Finding> {
  const password = marker('password')
  const redis = await testbed.redis({ password })
  const keysFile = join(testbed.dir, 'keys.json')
  const printed = await testbed.command(
    'cli/key',
    ['create', '--id', 'tester', '--scopes', 'enqueue,read,manage', '--queues', '*'],
    { API_KEYS_FILE: keysFile },
  )
  const markers: Markers = {
    password,
    apiKey: printed.split('\n')[0]!.trim(),
    wrongKey: marker('wrong-key'),
    data: marker('data'),
    // At least 32 characters.
    secret: marker('secret').repeat(2),
  }
  const env = { LOG_LEVEL: 'trace', LOG_REQUESTS: 'all', API_KEYS_FILE: keysFile, SECRET: markers.secret }
  const service = await testbed.service(redis.url, env)
  const responses: HttpResponse[] = []
  const httpClient = testbed.httpClient()
  const id = requestId(markers)
  const ask = async (path: string, request: Request = {}) => {
    const headers = {
      authorization: `Bearer ${markers.apiKey}`,
      ...(id === undefined ? {} : { 'x-request-id': id }),
      ...request.headers,
    }
    const response = await httpClient.ask(service.url + path, { ...request, headers })
    responses.push(response)
    return response
  }

  const targets = { ask, redis, service, markers }
  await sendValidRequests(targets)
  await sendInvalidRequests(targets)
  await sendWhileRedisFails(targets)
  // The control finds enough in the log of the running service.
  const others = id === undefined ? await startWithWrongSettings(testbed, redis, env, markers) : []
  await service.end()

  const written = [service.output(), ...others, await readFile(keysFile, 'utf8')]
  const responseTexts = responses.map(({ headers, body }) => JSON.stringify(headers) + body)
  const slots = [...written, ...responseTexts]
  const found = Object.values(markers).flatMap((value) =>
    encodingsOf(value).filter((text) => slots.some((place) => place.includes(text))),
  )
  const statuses = new Set(responses.map(({ status }) => status))
  return {
    checks: [
      { what: 'secrets found', measured: found.length, atMost: 0 },
      // Otherwise the search would have nothing to search.
      { what: 'different statuses', measured: statuses.size, atLeast: 8 },
      { what: 'bytes of log', measured: service.output().length, atLeast: 5_000 },
    ],
    counts: { responses: responses.length, secrets: Object.keys(markers).length },
  }
}

interface Targets {
  ask(path: string, request?: Request): Promise<HttpResponse>
  redis: RedisServer
  service: Service
  markers: Markers
}

const job = (data: string, more: object = {}) =>
  JSON.stringify({ queue: 'q', name: 'n', data: { data }, ...more })
const readPaths = [
  '/health',
  '/health/redis',
  '/health/ready',
  '/stats',
  '/metrics',
  '/queues',
  '/jobs?queue=q',
]

async function sendValidRequests({ ask, markers: { data } }: Targets): Promise<void> {
  await ask('/jobs', { body: job(data, { opts: { jobId: 'known' } }) })
  await ask('/jobs/batch', { body: `{"jobs":[${job(data)},${job(data, { name: 7 })}]}` })
  await ask('/jobs/q:known')
  await ask('/openapi.json')
  for (const path of readPaths) await ask(path)
}

async function sendInvalidRequests({ ask, service, markers }: Targets): Promise<void> {
  const { data, apiKey, wrongKey } = markers
  const bodies = [
    `{"queue":"q","name":"n","data":"${data}`,
    `{"queue":"q","name":"n","data":"${data}"} trailing`,
    `"${data}"`,
    job(data, { name: { nested: data } }),
    job(data, { unknown: data }),
    job(data, { opts: { delay: data } }),
    job(data, { opts: { jobId: `${data}!` } }),
    job(data, { opts: { sizeLimit: 1 } }),
    `{"__proto__":"${data}"}`,
    `${'['.repeat(100)}"${data}"${']'.repeat(100)}`,
    job(data.repeat(100_000)),
    '',
  ]
  for (const body of bodies) {
    await ask('/jobs', { body })
    await ask('/jobs/batch', { body: `{"jobs":[${body}]}` })
  }
  await ask('/jobs', { body: data, headers: { 'content-type': 'text/plain' } })
  await ask('/jobs', { body: job(data), headers: { 'idempotency-key': 'once' } })
  await ask('/jobs', { body: job(`${data} another`), headers: { 'idempotency-key': 'once' } })
  for (const path of [
    `/jobs/q:none?key=${apiKey}`,
    `/jobs/q:${data}%00`,
    `/none/${apiKey}`,
    `/jobs?cursor=${data}`,
  ]) {
    await ask(path)
  }
  for (const authorization of [`Bearer ${wrongKey}`, wrongKey, `Basic ${wrongKey}`, `Bearer ${apiKey}x`]) {
    await ask('/jobs', { body: job(data), headers: { authorization } })
    await ask('/health', { headers: { authorization } })
  }
  await ask('/jobs/q:known', { method: 'DELETE' })
  await sendRawText(service, `${data} is no HTTP\r\n\r\n`)
  await sendRawText(service, `GET / HTTP/1.1\r\nAuthorization: Bearer ${apiKey}\r\nContent-Length: x\r\n\r\n`)
}

async function sendWhileRedisFails({ ask, redis, markers: { data } }: Targets): Promise<void> {
  const { client } = redis
  const some = async () => {
    await ask('/jobs', { body: job(data, { opts: { jobId: 'chosen' } }) })
    await ask('/jobs/batch', { body: `{"jobs":[${job(data)}]}` })
    await ask('/jobs/q:never-asked')
    for (const path of readPaths) await ask(path)
  }
  await client.config('SET', 'maxmemory', '1')
  await some()
  await client.config('SET', 'maxmemory', '0')
  await client.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval', '-info')
  await some()
  await client.call('ACL', 'SETUSER', 'default', '+@all')
  // A key with the wrong type.
  await client.rename('bull:q:wait', 'aside')
  await client.set('bull:q:wait', 'a string')
  await some()
  await client.del('bull:q:wait')
  await client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await some()
  await redis.kill()
  await some()
  await redis.start()
  await until('it works again', async () => (await ask('/jobs', { body: job(data) })).status === 201)
}

/** The output of services that start with wrong settings. */
async function startWithWrongSettings(
  testbed: Testbed,
  redis: RedisServer,
  env: Record<string, string>,
  { password, wrongKey }: Markers,
): Promise<string[]> {
  const address = redis.url.slice(redis.url.indexOf('@') + 1)
  const urls = [
    `redis://:${wrongKey}@${address}`,
    `redis://${password}:${wrongKey}@${address}`,
    `rediss://:${password}@${address}`,
    `redis://:${password}@no-such-host.invalid`,
    `redis:/${password}`,
    `redis://:${password}@127.0.0.1:notaport`,
  ]
  return Promise.all(urls.map((url) => testbed.tryService(url, { ...env, PORT: '0' }, 3_000)))
}

function sendRawText({ url }: Service, text: string): Promise<void> {
  return new Promise((resolve) => {
    const { port, hostname } = new URL(url)
    const socket = connect(Number(port), hostname, () => socket.write(text))
    socket.resume()
    socket.on('error', () => {})
    socket.on('close', () => resolve())
  })
}

function marker(name: string): string {
  return `${name}-${randomBytes(12).toString('hex')}`
}

/** The text itself, and its usual encodings. */
function encodingsOf(text: string): string[] {
  const bytes = Buffer.from(text)
  return [text, bytes.toString('base64').replace(/=+$/, ''), bytes.toString('hex'), bytes.join(',')]
}
