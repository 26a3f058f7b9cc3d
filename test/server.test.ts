/** The process as an operator meets it: real signals, real sockets, a real restart. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
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
    child.once('exit', (code) => reject(new Error(`ended with ${code}: ${text}`)))
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
  t.equal((await once(second.child, 'exit'))[0], 0, 'Ctrl-C is as clean')
})

t.test('a job survives a service that is killed, and the Redis it leaves behind is taken over', async (t) => {
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

t.test('at SIGTERM a request that is on its way is answered before the process ends', async (t) => {
  const { child, url } = await start(t, { DATA_DIR: await dataDir(t), ENQUEUE_BATCH_DELAY: '400' })
  const { port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1')
  const body = '{"queue":"q","name":"n"}'
  socket.write(
    `POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
  // The batch is held open for 400 ms: the signal comes while the job has not left yet.
  await new Promise((resolve) => setTimeout(resolve, 150))
  const exit = once(child, 'exit')
  child.kill('SIGTERM')
  const [answer] = await once(socket, 'data')
  t.match(String(answer), /^HTTP\/1.1 201/)
  t.equal((await exit)[0], 0)
})

t.test('beyond loopback it serves only who says that strangers may', async (t) => {
  const DATA_DIR = await dataDir(t)
  await t.rejects(start(t, { DATA_DIR, HOST: '0.0.0.0' }), /ALLOW_ANONYMOUS/)
  const { child, lines } = await start(t, { DATA_DIR, HOST: '0.0.0.0', ALLOW_ANONYMOUS: 'true' })
  t.ok(lines.length > 0)
  child.kill('SIGTERM')
  await once(child, 'exit')
})

t.test('with a key it serves beyond loopback, and nobody without that key', async (t) => {
  const DATA_DIR = await dataDir(t)
  const words = ['create', '--id', 'mailer', '--scopes', 'enqueue,read', '--queues', 'q']
  const { stdout } = await run(process.execPath, ['--import', 'tsx', 'src/cli/key.ts', ...words], {
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
    'the log says whose request it was',
  )
})

t.test('a command of the keys that is wrong says so and ends with 1', async (t) => {
  const bad = run(process.execPath, ['--import', 'tsx', 'src/cli/key.ts', 'create', '--id', 'a'])
  await t.rejects(bad, { code: 1, stderr: /--scopes is missing/ })
})

t.test('a bad setting ends the start with a sentence for each, and none of the values', async (t) => {
  const bad = start(t, { REDIS_URL: 'http://user:hunter2@x', PORT: 'eighty' })
  await t.rejects(bad, /REDIS_URL must match/)
  const error = await bad.catch((error: Error) => error)
  t.match((error as Error).message, /PORT must be a whole number/)
  t.notMatch((error as Error).message, /hunter2/)
})

t.test('one line for a failed request, none for an ordinary one, and no data or secrets in it', async (t) => {
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

t.test('LOG_REQUESTS=all writes a line for every answer', async (t) => {
  const { child, url, lines } = await start(t, { DATA_DIR: await dataDir(t), LOG_REQUESTS: 'all' })
  await fetch(`${url}/health/live`)
  child.kill('SIGTERM')
  await once(child, 'exit')
  t.ok(
    lines.some(
      (line) =>
        line['msg'] === 'request completed' && line['route'] === '/health/live' && line['status'] === 200,
    ),
  )
})
