/** The process as an operator sees it: real signals, sockets and restarts. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'

const run = promisify(execFile)

interface Running {
  child: ChildProcess
  url: string
  lines: Record<string, unknown>[]
}

async function start(t: Test, env: Record<string, string>): Promise<Running> {
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/server.ts'], {
    env: {
      ...{ PATH: process.env['PATH'] ?? '', NODE_ENV: 'production', PORT: '0', REPLICAS: '1' },
      ...{ API_KEYS_FILE: join(env['DATA_DIR'] ?? '/nowhere', 'keys.json'), ...env },
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  t.teardown(() => {
    if (child.exitCode === null) child.kill('SIGKILL')
  })
  const lines: Record<string, unknown>[] = []
  let text = ''
  const url = await new Promise<string>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`exited with ${code}: ${text}`)))
    child.stderr?.on('data', (data) => {
      text += data
    })
    let rest = ''
    child.stdout?.on('data', (data) => {
      const parts = (rest + data).split('\n')
      rest = parts.pop() ?? ''
      for (const part of parts) {
        const line = JSON.parse(part) as Record<string, unknown>
        lines.push(line)
        text += `${part}\n`
        const listening = /Server listening at (\S+)/.exec(String(line['msg']))
        if (listening) resolve(listening[1]!)
      }
    })
  })
  return { child, url, lines }
}

async function dataDir(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

const post = (url: string, job: object) =>
  fetch(`${url}/jobs`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(job),
  })

t.test('a job survives a restart of the service and its private Redis', async (t) => {
  const DATA_DIR = await dataDir(t)
  const first = await start(t, { DATA_DIR })
  t.equal((await post(first.url, { queue: 'q', name: 'n', data: 1, opts: { jobId: 'kept' } })).status, 201)
  first.child.kill('SIGTERM')
  const [code] = await once(first.child, 'exit')
  t.equal(code, 0)
  const second = await start(t, { DATA_DIR })
  t.match(await (await fetch(`${second.url}/jobs/q:kept`)).json(), { state: 'waiting' })
  second.child.kill('SIGINT')
  t.equal((await once(second.child, 'exit'))[0], 0, 'SIGINT is as clean')
})

t.test('a job survives a service that is killed, whose Redis the next start takes over', async (t) => {
  const DATA_DIR = await dataDir(t)
  const first = await start(t, { DATA_DIR })
  await post(first.url, { queue: 'q', name: 'n', opts: { jobId: 'kept' } })
  first.child.kill('SIGKILL')
  await once(first.child, 'exit')
  const second = await start(t, { DATA_DIR })
  t.equal((await fetch(`${second.url}/jobs/q:kept`)).status, 200)
  t.ok(second.lines.some((line) => /Taking over/.test(String(line['msg']))))
  second.child.kill('SIGTERM')
  t.equal((await once(second.child, 'exit'))[0], 0)
})

t.test('after SIGTERM a request in flight is served before the process exits', async (t) => {
  const { child, url } = await start(t, { DATA_DIR: await dataDir(t), ENQUEUE_BATCH_DELAY: '400' })
  const { port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1')
  const body = '{"queue":"q","name":"n"}'
  socket.write(
    `POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
  // The batch is held open for 400 ms: the signal comes while the job has not left yet.
  await new Promise((resolve) => setTimeout(resolve, 150))
  const exit = once(child, 'exit')
  child.kill('SIGTERM')
  const [response] = await once(socket, 'data')
  t.match(String(response), /^HTTP\/1.1 201/)
  t.equal((await exit)[0], 0)
})

t.test('without keys it listens beyond loopback only with ALLOW_ANONYMOUS=true', async (t) => {
  const DATA_DIR = await dataDir(t)
  await t.rejects(start(t, { DATA_DIR, HOST: '0.0.0.0' }), /ALLOW_ANONYMOUS/)
  const open = { DATA_DIR, HOST: '0.0.0.0', ALLOW_ANONYMOUS: 'true' }
  for (const HOST of ['0.0.0.0', '127.0.0.1'])
    await t.rejects(start(t, { ...open, HOST }), /API_KEYS_FILE names .*keys\.json, which does not exist/)
  await writeFile(join(DATA_DIR, 'keys.json'), '{"version":1,"keys":[]}')
  const { child, lines } = await start(t, open)
  t.ok(lines.some((line) => /every client that reaches the port/.test(String(line['msg']))))
  child.kill('SIGTERM')
  await once(child, 'exit')
})

t.test('with a key it listens beyond loopback, and refuses requests without that key', async (t) => {
  const DATA_DIR = await dataDir(t)
  const args = ['create', '--id', 'mailer', '--scopes', 'enqueue,read', '--queues', 'q']
  const { stdout } = await run(process.execPath, ['--import', 'tsx', 'src/cli/key.ts', ...args], {
    env: { PATH: process.env['PATH'] ?? '', API_KEYS_FILE: join(DATA_DIR, 'keys.json') },
  })
  const secret = stdout.split('\n')[0]!
  const { child, url, lines } = await start(t, { DATA_DIR, HOST: '0.0.0.0' })
  const get = (authorization?: string) =>
    fetch(`${url}/jobs/q:x`, authorization === undefined ? {} : { headers: { authorization } })
  t.equal((await get()).status, 401)
  t.equal((await get(`Bearer ${secret}`)).status, 404)
  t.equal((await fetch(`${url}/health/live`)).status, 200)
  child.kill('SIGTERM')
  await once(child, 'exit')
  t.notMatch(JSON.stringify(lines), secret.split('.')[1]!)
  t.match(
    lines.find((line) => line['status'] === 404),
    { key: 'mailer' },
    'the log names the key of the request',
  )
})

t.test('a mistake in the arguments of `npm run key` is reported with exit code 1', async (t) => {
  const bad = run(process.execPath, ['--import', 'tsx', 'src/cli/key.ts', 'create', '--id', 'a'])
  await t.rejects(bad, { code: 1, stderr: /--scopes is missing/ })
})

t.test('`npm run key -- --help` prints the usage with exit code 0', async (t) => {
  const { stdout } = await run(process.execPath, ['--import', 'tsx', 'src/cli/key.ts', '--help'])
  t.match(stdout, /^Usage:/)
})

t.test(
  'an unknown name in FEATURES_DISABLED is reported, with the names to choose from, before Redis starts',
  async (t) => {
    const DATA_DIR = await dataDir(t)
    const bad = start(t, { DATA_DIR, FEATURES_DISABLED: 'hooks' })
    await t.rejects(bad, /there is no feature hooks. Choose from: events, leases, webhooks/)
    t.same(await readdir(DATA_DIR), [], 'the data folder is untouched')
  },
)

t.test('every invalid setting is reported, without its value, before the process exits', async (t) => {
  const bad = start(t, { REDIS_URL: 'http://user:hunter2@x', PORT: 'eighty' })
  await t.rejects(bad, /REDIS_URL must match/)
  const error = await bad.catch((error: Error) => error)
  t.match((error as Error).message, /PORT must be a whole number/)
  t.notMatch((error as Error).message, /hunter2/)
})

t.test('a failed request is one log line, others are none, and no line holds data or secrets', async (t) => {
  const { child, url, lines } = await start(t, { DATA_DIR: await dataDir(t) })
  const before = lines.length
  await post(url, { queue: 'q', name: 'n', data: { password: 'hunter2' }, opts: { jobId: 'a' } })
  await fetch(`${url}/jobs/q:a`)
  await fetch(`${url}/jobs/q:nobody`, {
    headers: { 'x-request-id': 'my-request', authorization: 'Bearer hunter2' },
  })
  child.kill('SIGTERM')
  await once(child, 'exit')
  const requests = lines.slice(before).filter((line) => line['requestId'] !== undefined)
  t.equal(requests.length, 1)
  t.match(requests[0], { status: 404, code: 'JOB_NOT_FOUND', requestId: 'my-request', route: '/jobs/:id' })
  t.notMatch(JSON.stringify(lines), /hunter2/)
})

t.test('LOG_REQUESTS=all logs every response', async (t) => {
  const { child, url, lines } = await start(t, { DATA_DIR: await dataDir(t), LOG_REQUESTS: 'all' })
  await fetch(`${url}/health/live`)
  child.kill('SIGTERM')
  await once(child, 'exit')
  t.ok(
    lines.some(
      (line) =>
        line['msg'] === 'Request completed' && line['route'] === '/health/live' && line['status'] === 200,
    ),
  )
})
