/**
 * The workers in examples/, each as its reader would run it: a process of its own that knows nothing but a URL and a key.
 * What takes longest is the shell's, which works one job at a time, so the three run side by side.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { createServer } from 'node:http'
import { delimiter, join } from 'node:path'
import t, { type Test } from 'tap'
import { eventually, startApp } from './helpers/app.ts'
import { startAppWithKeys } from './helpers/keys.ts'
import { startRedis } from './helpers/redis.ts'

const LEASE_MS = 3_000
const GRACE_MS = 800

/** The work of the shell's worker: what the two others do in their own language. */
const SHELL_WORK = `
  data=$(cat)
  eval "$(jq -r '@sh "fail=\\(.fail) ms=\\(.sleepMs // 0) plain=\\(.plain)"' <<<"$data")"
  [ "$fail" != 'for good' ] || { echo 'It was to fail for good' >&2; exit 100; }
  [ "$fail" != true ] || { echo 'It was to fail' >&2; exit 1; }
  [ "$ms" = 0 ] || sleep "$(awk -v ms="$ms" 'BEGIN { print ms / 1000 }')"
  [ "$plain" != true ] || { echo "$JOB_NAME $JOB_ATTEMPT of $JOB_ID"; exit; }
  hash=$(printf %s "$data" | { sha256sum 2>/dev/null || shasum -a 256; })
  echo "{\\"sha256\\":\\"\${hash%% *}\\",\\"bytes\\":$(printf %s "$data" | wc -c)}"`

interface Example {
  name: string
  command: string
  args: string[]
  needs: string[]
  /** It works several jobs at once, tells progress, and finishes what is nearly done before it ends. */
  isConcurrent: boolean
}

const examples: Example[] = [
  {
    ...{ name: 'worker-pull.ts', needs: [], isConcurrent: true },
    ...{ command: process.execPath, args: ['--import', 'tsx', 'examples/worker-pull.ts'] },
  },
  {
    ...{ name: 'worker_pull.py', needs: ['python3'], isConcurrent: true },
    ...{ command: 'python3', args: ['examples/worker_pull.py'] },
  },
  {
    ...{ name: 'worker-pull.sh', needs: ['bash', 'curl', 'jq'], isConcurrent: false },
    ...{ command: 'examples/worker-pull.sh', args: ['bash', '-c', SHELL_WORK] },
  },
]

const redis = await startRedis()
t.teardown(() => redis.stop())
t.jobs = examples.length

for (const example of examples) {
  const missing = example.needs.filter((program) => !isOnPath(program))
  const skip = missing.length > 0 && `there is no ${missing.join(', no ')} here`
  t.test(example.name, { skip, buffered: true }, (t) => testExample(t, example))
}

async function testExample(t: Test, example: Example): Promise<void> {
  const service = await startService(t)
  const worker = startWorker(t, example, service)
  const { add, ended } = service

  await t.test('every job completes, with its own result', async (t) => {
    const data = Array.from({ length: example.isConcurrent ? 30 : 12 }, (_, n) => ({
      n,
      text: `Straße ${n}`,
    }))
    const ids = await Promise.all(data.map((one) => add(one)))
    const jobs = await Promise.all(ids.map(ended))
    t.match(
      jobs,
      data.map((one) => ({ state: 'completed', result: digestOf(one), attemptsMade: 1 })),
    )
  })

  await t.test('a failure is tried again by attempts and backoff; an unrecoverable one is not', async (t) => {
    const began = performance.now()
    const again = await add({ fail: true }, { attempts: 3, backoff: { type: 'fixed', delay: 200 } })
    const never = await add({ fail: 'for good' }, { attempts: 3 })
    t.match(await ended(again), { state: 'failed', attemptsMade: 3, error: { message: /It was to fail$/ } })
    t.ok(performance.now() - began >= 400, 'it waited twice')
    t.match(await ended(never), { state: 'failed', attemptsMade: 1, error: { message: /for good$/ } })
  })

  await t.test('work that outlasts its lease is done once, since the lease is extended', async (t) => {
    const id = await add({ sleepMs: LEASE_MS + 1_000 })
    const job = await ended(id)
    t.match(job, { state: 'completed' })
    t.equal(await service.field(id, 'ats'), '1', 'it was taken once')
    if (example.isConcurrent) t.ok(job.progress > 0 && job.progress < 100, 'its progress was told')
  })

  await t.test('a result whose lease was lost is dropped, and the worker goes on', async (t) => {
    const lost = await add({ sleepMs: 600 })
    await service.untilActive(lost)
    await service.giveToAnother(lost)
    const next = await add({ sleepMs: 900 })
    t.match(await ended(next), { state: 'completed' })
    t.match(await service.look(lost), { state: 'active', result: null })
    t.match(worker.said(), `${lost}: The lease is no longer held`)
  })

  await t.test('what is done while the service is away is told when it is back', async (t) => {
    const ids = await Promise.all([1, 2, 3].map((n) => add({ n, sleepMs: 300 })))
    await service.untilActive(ids[0]!)
    const asked = await service.restart()
    t.match(
      await Promise.all(ids.map(ended)),
      ids.map(() => ({ state: 'completed' })),
    )
    const pauses = [...asked.values()].flatMap((times) => times.slice(1).map((time, at) => time - times[at]!))
    t.ok(pauses.length > 0, 'it asked again')
    t.ok(Math.min(...pauses) >= 990, `not before Retry-After: ${pauses.map(Math.round)} ms`)
  })

  if (!example.isConcurrent) {
    await t.test('what is not JSON is a text', async (t) => {
      const id = await add({ plain: true })
      t.match(await ended(id), { result: `n 1 of ${id}` })
    })
  }

  await t.test('on SIGTERM what cannot be finished is released, and it ends with 0', async (t) => {
    const short = example.isConcurrent ? await add({ sleepMs: 300 }) : undefined
    const long = await add({ sleepMs: 20_000 })
    await service.untilActive(long)
    // Its answer may still be on the way, and a job that nobody has heard of comes back with its lease's end alone.
    await new Promise((resolve) => setTimeout(resolve, 500))
    const began = performance.now()
    worker.child.kill('SIGTERM')
    t.same(await worker.exited, [0, null])
    const ms = Math.round(performance.now() - began)
    t.ok(ms < GRACE_MS + 2_000, `it took ${ms} ms`)
    t.match(await service.look(long), { state: 'waiting', attemptsMade: 0 })
    if (short) t.match(await service.look(short), { state: 'completed' }, 'what could be finished is')
  })
  if (!t.passing()) t.comment(worker.said())
}

function startWorker(t: Test, { command, args }: Example, { url, key }: { url: string; key: string }) {
  const { PATH, HOME } = process.env
  const settings = { SLUICE_URL: url, SLUICE_KEY: key, QUEUE: 'q' }
  const child = spawn(command, args, {
    env: { PATH, HOME, ...settings, LEASE_MS: `${LEASE_MS}`, GRACE_MS: `${GRACE_MS}`, CONCURRENCY: '8' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (said += data))
  const exited = once(child, 'exit')
  t.teardown(() => end(child, exited))
  return { child, exited, said: () => said }
}

/** A worker that a test has left behind still gets to end what it has started itself. */
async function end(child: ChildProcess, exited: Promise<unknown>): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  const impatient = setTimeout(() => child.kill('SIGKILL'), 3_000)
  await exited
  clearTimeout(impatient)
}

interface Job {
  state: string
  result: unknown
  attemptsMade: number
  progress: number
  error: { message: string } | null
}

/** The service on a port that it keeps, and what a test wants of it. */
async function startService(t: Test) {
  const settings = { SECRET: 'the same before and after a restart' }
  const grants = {
    worker: { scopes: ['work' as const] },
    sender: { scopes: ['enqueue' as const, 'read' as const] },
  }
  const { app, secrets, path } = await startAppWithKeys(t, redis, grants, settings)
  const { prefix } = app
  const url = await app.http.listen({ host: '127.0.0.1', port: 0 })
  const port = Number(new URL(url).port)
  const headers = { authorization: `Bearer ${secrets.sender}` }

  async function add(data: object, opts: object = {}): Promise<string> {
    const body = JSON.stringify({ queue: 'q', name: 'n', data, opts })
    const json = { ...headers, 'content-type': 'application/json' }
    const answer = await fetch(`${url}/jobs`, { method: 'POST', headers: json, body })
    return ((await answer.json()) as { id: string }).id
  }

  const ask = async (id: string, query = '', more = {}) =>
    (await (await fetch(`${url}/jobs/${id}${query}`, { headers: { ...headers, ...more } })).json()) as Job
  /** As it is in Redis. */
  const look = (id: string) => ask(id, '', { 'cache-control': 'no-cache' })

  /** Away, then there and without time, then away, then back. Gives when it was asked meanwhile, by path. */
  async function restart(): Promise<Map<string, number[]>> {
    const asked = new Map<string, number[]>()
    await app.http.close()
    const busy = createServer((request, reply) => {
      const times = asked.get(request.url!) ?? []
      // Leases are extended before they run out, whatever the service says.
      if (request.url !== '/leases/extend') asked.set(request.url!, [...times, performance.now()])
      reply.writeHead(503, { 'retry-after': '1' }).end()
    })
    busy.listen(port, '127.0.0.1')
    await eventually(() => [...asked.values()].some((times) => times.length > 1))
    busy.close()
    busy.closeAllConnections()
    await once(busy, 'close')
    const { http } = await startApp(redis, { ...settings, QUEUE_PREFIX: prefix, API_KEYS_FILE: path })
    t.teardown(() => http.close())
    await http.listen({ host: '127.0.0.1', port })
    return asked
  }

  const keyOf = (id: string) => `${prefix}:${id}`
  return {
    ...{ url, key: secrets.worker, add, look, restart },
    ended: (id: string) => ask(id, '?wait=30'),
    untilActive: (id: string) => eventually(async () => (await look(id)).state === 'active'),
    field: (id: string, name: string) => redis.client.hget(keyOf(id), name),
    giveToAnother: (id: string) => redis.client.set(`${keyOf(id)}:lock`, 'another'),
  }
}

function digestOf(data: object): { sha256: string; bytes: number } {
  const text = JSON.stringify(data)
  return { sha256: createHash('sha256').update(text).digest('hex'), bytes: Buffer.byteLength(text) }
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
