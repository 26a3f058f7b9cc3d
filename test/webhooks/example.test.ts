/** examples/worker-push.ts as a user runs it: in its own process, subscribed over HTTP. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { eventually, startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())

t.test(
  'the example endpoint completes signed jobs, rejects unsigned requests and exits with 0',
  async (t) => {
    const secret = `whsec_${Buffer.alloc(32, 3).toString('base64')}`
    const { PATH, HOME } = process.env
    const child = spawn(process.execPath, ['--import', 'tsx', 'examples/worker-push.ts'], {
      env: { PATH, HOME, PORT: '0', WEBHOOK_SECRET: secret },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const exited = once(child, 'exit')
    t.teardown(() => child.kill('SIGKILL'))
    let output = ''
    child.stdout.on('data', (data) => (output += data))
    await eventually(() => /http:\S+/.test(output))
    const [url = ''] = /http:\S+/.exec(output) ?? []

    const app = await startApp(redis, { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
    t.teardown(() => app.http.close())
    const send = (method: 'PUT' | 'POST', path: string, body: object) =>
      app.http.inject({
        method,
        url: path,
        headers: { 'content-type': 'application/json' },
        payload: JSON.stringify(body),
      })
    const unsigned = await fetch(url, { method: 'POST', body: '{}' })
    t.equal(unsigned.status, 401)
    t.equal((await send('PUT', '/queues/q/subscription', { url, secret })).statusCode, 201)
    const done = await send('POST', '/jobs?wait=20', { queue: 'q', name: 'n', data: { a: 1 } })
    t.match(done.json(), { state: 'completed', result: { sha256: /^[0-9a-f]{64}$/, bytes: 7 } })
    child.kill('SIGTERM')
    t.same(await exited, [0, null])
  },
)
