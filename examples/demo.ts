/**
 * `npm run demo`: starts the service with its private Redis and, as another process, plain BullMQ workers; enqueues the
 * jobs of orders.ndjson over HTTP, follows each to its end, tells what happened, and stops what it started. Exit code 1
 * when any job ends otherwise than it should. Everything it says about the service it has from HTTP.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

interface NewJob {
  queue: string
  name: string
  data: Record<string, unknown>
  opts?: { deduplication?: { id: string } }
}

interface Job {
  id: string
  name: string
  state: string
  result: unknown
  error: { message: string } | null
}

interface Stats {
  commandsSent: Record<string, number>
  pool: { created: number; budget: number }
  batching: { meanBatchSize: number }
}

const root = fileURLToPath(new URL('..', import.meta.url))
const PREFIX = 'bull'
/** So many go one by one, by POST /jobs; the rest by POST /jobs/batch. */
const SINGLES = 60
const BATCH_SIZE = 120
/** The service says 1 s, 2 s, 4 s …, as the job gets older; a demo is not that patient. */
const MAX_PAUSE_MS = 1_000
/** Everything but the stopping, which has its own. */
const TIMEOUT_MS = 45_000
const STOP_TIMEOUT_MS = 5_000
/** A longer path of a socket the service would move elsewhere (see src/redis/embedded.ts). */
const MAX_SOCKET_PATH = 103

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => interrupted.abort(new Error(`stopped by ${signal}`)))
}
const signal = AbortSignal.any([interrupted.signal, AbortSignal.timeout(TIMEOUT_MS)])

interface Child {
  name: string
  child: ChildProcess
  /** Before this it may not know what to do with a signal: a service that only starts would leave its Redis behind. */
  started: Promise<unknown>
}

const children: Child[] = []
const counted = { polls: 0, notModified: 0, fromMemory: 0 }
let dataDir: string | undefined

try {
  process.exitCode = (await run()) ? 0 : 1
} catch (error) {
  const { message } = signal.aborted ? (signal.reason as Error) : (error as Error)
  console.error(`\nThe demo did not get to its end: ${message}`)
  process.exitCode = 1
} finally {
  // The workers first: they need the Redis that ends with the service.
  for (const child of children.reverse()) await stop(child)
  if (dataDir) await rm(dataDir, { recursive: true, force: true })
}

async function run(): Promise<boolean> {
  const text = await readFile(join(root, 'examples/orders.ndjson'), 'utf8')
  const jobs = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as NewJob]))
  dataDir = await makeDataDir()
  const url = await startService(dataDir)
  await startWorkers(join(dataDir, 'redis.sock'), [...new Set(jobs.map((job) => job.queue))])
  console.log(`The service listens at ${url}, BullMQ workers wait on its Redis.`)

  const began = performance.now()
  const stored = await enqueue(url, jobs)
  console.log(
    `Enqueued ${jobs.length} jobs in ${elapsedMs(began)} ms: ${SINGLES} by POST /jobs, the rest by POST /jobs/batch.`,
  )
  const ids = [...new Set(stored.map(({ id }) => id))]
  const ended = await followAll(url, ids)
  const tookS = (elapsedMs(began) / 1000).toFixed(1)

  const whileRunning = { ...counted }
  const before = await getJson<Stats>(`${url}/stats`)
  await Promise.all(ids.map((id) => poll(url, id, ended.get(id)!.etag)))
  const after = await getJson<Stats>(`${url}/stats`)

  const wrong = jobs.flatMap((job, index) => problemOf(job, ended.get(stored[index]!.id)!.job))
  const deduplicated = stored.filter((answer) => answer.deduplicated).length
  const expectedDuplicates = countDuplicates(jobs)
  if (deduplicated !== expectedDuplicates)
    wrong.push(`${deduplicated} jobs were deduplicated instead of ${expectedDuplicates}`)

  const finals = [...ended.values()].map(({ job }) => job)
  const failed = finals.filter((job) => job.state === 'failed')
  const extraPolls = counted.polls - whileRunning.polls
  printTable([
    ['created', jobs.length - deduplicated],
    ['deduplicated', deduplicated],
    ['completed', finals.length - failed.length],
    ['failed', failed.length],
    ...failed.map((job): Row => [`  ${job.name}`, job.error?.message ?? '']),
    ['polls until all had ended', whileRunning.polls],
    ['  answered 304', whileRunning.notModified],
    ['  answered from memory', whileRunning.fromMemory],
    ['polls of ended jobs, once each', extraPolls],
    ['  answered 304', counted.notModified - whileRunning.notModified],
    ['  answered from memory', counted.fromMemory - whileRunning.fromMemory],
    ['  Redis commands they cost', total(after.commandsSent) - total(before.commandsSent)],
    ['Redis commands in all', total(after.commandsSent)],
    ...Object.entries(after.commandsSent).map(([name, count]): Row => [`  ${name}`, count]),
    ['jobs per enqueue command', after.batching.meanBatchSize],
    ['Redis connections held', `${after.pool.created} of ${after.pool.budget} allowed`],
    ['took', `${tookS} s`],
  ])
  for (const problem of wrong) console.log(`WRONG: ${problem}`)
  console.log(wrong.length === 0 ? 'Every job ended as it should.' : `${wrong.length} things are wrong.`)
  return wrong.length === 0
}

async function makeDataDir(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-demo-'))
  if (Buffer.byteLength(join(folder, 'redis.sock')) <= MAX_SOCKET_PATH) return folder
  await rm(folder, { recursive: true })
  return mkdtemp('/tmp/sluice-demo-')
}

/** Resolves to its address, which it logs when it listens. */
async function startService(folder: string): Promise<string> {
  const child = spawn(process.execPath, ['dist/server.js'], {
    cwd: root,
    env: {
      ...process.env,
      ...{ NODE_ENV: 'development', HOST: '127.0.0.1', PORT: '0', DATA_DIR: folder, QUEUE_PREFIX: PREFIX },
      // Empty, so that an address in the environment or in .env does not bring the demo to somebody's real queues.
      REDIS_URL: '',
      ...{ LOG_LEVEL: 'info', LOG_REQUESTS: 'none', SHUTDOWN_TIMEOUT: String(STOP_TIMEOUT_MS) },
    },
    stdio: ['ignore', 'pipe', 'inherit'],
    // A group of its own, so that Ctrl-C reaches the demo alone, which ends the workers before the service.
    detached: true,
  })
  const said: string[] = []
  const listening = new Promise<string>((resolve) => {
    // The reader stays for good, since a service that nobody reads would block on a full pipe.
    createInterface({ input: child.stdout }).on('line', (line) => {
      const message = messageOf(line)
      said.push(message)
      const address = /^Server listening at (\S+)$/.exec(message)?.[1]
      if (address) resolve(address)
    })
  })
  children.push({ name: 'the service', child, started: listening })
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`the service ended with code ${code}:\n  ${said.join('\n  ')}`)
  })
  // It also ends at the end of the demo, when nobody waits for this any more.
  ended.catch(() => {})
  return untilAborted(Promise.race([listening, ended]))
}

async function startWorkers(socket: string, queues: string[]): Promise<void> {
  const child = fork(join(root, 'examples/demo-worker.ts'), [socket, PREFIX, ...queues], {
    cwd: root,
    execArgv: ['--import', 'tsx'],
  })
  const started = once(child, 'message')
  children.push({ name: 'the workers', child, started })
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`the workers ended with code ${code}`)
  })
  ended.catch(() => {})
  await untilAborted(Promise.race([started, ended]))
}

async function enqueue(url: string, jobs: NewJob[]): Promise<{ id: string; deduplicated: boolean }[]> {
  const singles = jobs.slice(0, SINGLES).map((job) => post<Answer>(`${url}/jobs`, job))
  const stored: Answer[] = await Promise.all(singles)
  for (let at = SINGLES; at < jobs.length; at += BATCH_SIZE) {
    const part = jobs.slice(at, at + BATCH_SIZE)
    const { results } = await post<{ results: Answer[] }>(`${url}/jobs/batch`, { jobs: part })
    stored.push(...results)
  }
  const refused = stored.findIndex(({ status = 201 }) => status >= 400)
  if (refused >= 0) throw new Error(`job ${refused} was refused: ${JSON.stringify(stored[refused])}`)
  return stored
}

interface Answer {
  id: string
  deduplicated: boolean
  /** Of an item of a batch. */
  status?: number
}

interface Ended {
  job: Job
  etag: string
}

async function followAll(url: string, ids: string[]): Promise<Map<string, Ended>> {
  const ended = new Map<string, Ended>()
  const tell = () => console.log(`  ${ended.size} of ${ids.length} have ended, ${counted.polls} polls`)
  const teller = setInterval(tell, 1_000)
  try {
    await Promise.all(ids.map(async (id) => ended.set(id, await follow(url, id))))
  } finally {
    clearInterval(teller)
  }
  tell()
  return ended
}

/** Asks for one job until it has ended, no sooner than the service says, and for no more than what changed. */
async function follow(url: string, id: string): Promise<Ended> {
  let etag: string | undefined
  while (true) {
    const answer = await poll(url, id, etag)
    etag = answer.headers.get('etag') ?? undefined
    const job = answer.status === 200 ? ((await answer.json()) as Job) : undefined
    if (etag && (job?.state === 'completed' || job?.state === 'failed')) return { job, etag }
    const retryAfterMs = 1_000 * Number(answer.headers.get('retry-after') ?? 1)
    await sleep(Math.min(retryAfterMs, MAX_PAUSE_MS), undefined, { signal })
  }
}

async function poll(url: string, id: string, etag: string | undefined): Promise<Response> {
  const headers: Record<string, string> = etag === undefined ? {} : { 'if-none-match': etag }
  const answer = await fetch(`${url}/jobs/${encodeURIComponent(id)}`, { headers, signal })
  if (answer.status !== 200 && answer.status !== 304)
    throw new Error(`GET /jobs/${id} answered ${answer.status}: ${await answer.text()}`)
  counted.polls++
  if (answer.status === 304) counted.notModified++
  if (answer.headers.get('cache-status')?.startsWith('sluice; hit')) counted.fromMemory++
  return answer
}

async function post<T>(url: string, body: unknown): Promise<T> {
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body), signal })
  if (!answer.ok) throw new Error(`POST ${url} answered ${answer.status}: ${await answer.text()}`)
  return (await answer.json()) as T
}

async function getJson<T>(url: string): Promise<T> {
  const answer = await fetch(url, { signal })
  return (await answer.json()) as T
}

/** What should have become of a job, judged by its data alone. */
function problemOf(job: NewJob, { id, state, result, error }: Job): string[] {
  const { card, to, width } = job.data
  const isHopeless =
    card === '4000000000000002' || width === 0 || (to !== undefined && !String(to).includes('@'))
  const expected = isHopeless ? 'failed' : 'completed'
  if (state !== expected) return [`${id} (${job.name}) is ${state} instead of ${expected}: ${error?.message}`]
  if (state === 'completed' && result === null) return [`${id} (${job.name}) completed without a result`]
  return state === 'failed' && !error?.message ? [`${id} (${job.name}) failed without a reason`] : []
}

function countDuplicates(jobs: NewJob[]): number {
  const ids = jobs.flatMap(({ opts }) => opts?.deduplication?.id ?? [])
  return ids.length - new Set(ids).size
}

type Row = [label: string, value: string | number]

function printTable(rows: Row[]): void {
  const width = Math.max(...rows.map(([label]) => label.length))
  console.log()
  for (const [label, value] of rows) console.log(`  ${label.padEnd(width)}  ${value}`)
  console.log()
}

function untilAborted<T>(promise: Promise<T>): Promise<T> {
  const aborted = new Promise<never>((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
  return Promise.race([promise, aborted])
}

async function stop({ name, child, started }: Child): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  await Promise.race([started, exited, sleep(STOP_TIMEOUT_MS, undefined, { ref: false })])
  if (child.exitCode !== null || child.signalCode !== null) return
  const impatient = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS + 1_000)
  child.kill('SIGTERM')
  const [code, killedBy] = (await exited) as [number | null, string | null]
  clearTimeout(impatient)
  if (code !== 0) {
    console.error(`${name} did not stop in order: ${killedBy ?? `exit code ${code}`}`)
    process.exitCode = 1
  }
}

function messageOf(line: string): string {
  try {
    return (JSON.parse(line) as { msg: string }).msg
  } catch {
    return line
  }
}

function elapsedMs(began: number): number {
  return Math.round(performance.now() - began)
}

function total(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0)
}
