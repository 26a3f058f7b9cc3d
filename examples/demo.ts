/**
 * `npm run demo`: starts the service with its embedded Redis and, in another process, plain BullMQ workers.
 * It enqueues the jobs of orders.ndjson over HTTP, polls each until it has finished, prints a summary and
 * stops what it started. The exit code is 1 if any job ends in an unexpected state. Every figure about the
 * service comes from its HTTP API.
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
/** Jobs sent one by one with POST /jobs; the rest go with POST /jobs/batch. */
const SINGLES = 60
const BATCH_SIZE = 120
/** The service's Retry-After grows with the age of a job (1 s, 2 s, 4 s …); the demo polls more often. */
const MAX_PAUSE_MS = 1_000
/** For everything except stopping, which has its own timeout. */
const TIMEOUT_MS = 45_000
const STOP_TIMEOUT_MS = 5_000
/** The service moves a socket with a longer path elsewhere (see src/redis/embedded/embedded-redis.ts). */
const MAX_SOCKET_PATH = 103

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => interrupted.abort(new Error(`stopped by ${signal}`)))
}
const signal = AbortSignal.any([interrupted.signal, AbortSignal.timeout(TIMEOUT_MS)])

interface Child {
  name: string
  child: ChildProcess
  /**
   * Resolves when the child handles signals; a service that is still starting would leave its Redis behind.
   */
  started: Promise<unknown>
}

const children: Child[] = []
const counted = { polls: 0, notModified: 0, fromMemory: 0 }
let dataDir: string | undefined

try {
  process.exitCode = (await run()) ? 0 : 1
} catch (error) {
  const { message } = signal.aborted ? (signal.reason as Error) : (error as Error)
  console.error(`\nThe demo failed: ${message}`)
  process.exitCode = 1
} finally {
  // The workers first: their Redis stops with the service.
  for (const child of children.reverse()) await stop(child)
  if (dataDir) await rm(dataDir, { recursive: true, force: true })
}

async function run(): Promise<boolean> {
  const text = await readFile(join(root, 'examples/orders.ndjson'), 'utf8')
  const jobs = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as NewJob]))
  dataDir = await makeDataDir()
  const url = await startService(dataDir)
  await startWorkers(join(dataDir, 'redis.sock'), [...new Set(jobs.map((job) => job.queue))])
  console.log(`The service listens at ${url}; BullMQ workers are connected to its Redis.`)

  const began = performance.now()
  const stored = await enqueue(url, jobs)
  console.log(
    `Enqueued ${jobs.length} jobs in ${elapsedMs(began)} ms: ${SINGLES} with POST /jobs, the rest with POST /jobs/batch.`,
  )
  const ids = [...new Set(stored.map(({ id }) => id))]
  const finished = await followAll(url, ids)
  const tookS = (elapsedMs(began) / 1000).toFixed(1)

  const whileRunning = { ...counted }
  const before = await getJson<Stats>(`${url}/stats`)
  await Promise.all(ids.map((id) => poll(url, id, finished.get(id)!.etag)))
  const after = await getJson<Stats>(`${url}/stats`)

  const problems = jobs.flatMap((job, index) => problemOf(job, finished.get(stored[index]!.id)!.job))
  const deduplicated = stored.filter((job) => job.deduplicated).length
  const expectedDuplicates = countDuplicates(jobs)
  if (deduplicated !== expectedDuplicates)
    problems.push(`${deduplicated} jobs were deduplicated instead of ${expectedDuplicates}`)

  const finals = [...finished.values()].map(({ job }) => job)
  const failed = finals.filter((job) => job.state === 'failed')
  const extraPolls = counted.polls - whileRunning.polls
  printTable([
    ['created', jobs.length - deduplicated],
    ['deduplicated', deduplicated],
    ['completed', finals.length - failed.length],
    ['failed', failed.length],
    ...failed.map((job): Row => [`  ${job.name}`, job.error?.message ?? '']),
    ['polls until all had finished', whileRunning.polls],
    ['  not modified (304)', whileRunning.notModified],
    ['  served from memory', whileRunning.fromMemory],
    ['polls of finished jobs, once each', extraPolls],
    ['  not modified (304)', counted.notModified - whileRunning.notModified],
    ['  served from memory', counted.fromMemory - whileRunning.fromMemory],
    ['  Redis commands for these polls', total(after.commandsSent) - total(before.commandsSent)],
    ['Redis commands in total', total(after.commandsSent)],
    ...Object.entries(after.commandsSent).map(([name, count]): Row => [`  ${name}`, count]),
    ['jobs per enqueue command', after.batching.meanBatchSize],
    ['Redis connections open', `${after.pool.created} of ${after.pool.budget} allowed`],
    ['took', `${tookS} s`],
  ])
  for (const problem of problems) console.log(`UNEXPECTED: ${problem}`)
  console.log(
    problems.length === 0
      ? 'Every job ended as expected.'
      : `${problems.length} unexpected results, see above.`,
  )
  return problems.length === 0
}

async function makeDataDir(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-demo-'))
  if (Buffer.byteLength(join(folder, 'redis.sock')) <= MAX_SOCKET_PATH) return folder
  await rm(folder, { recursive: true })
  return mkdtemp('/tmp/sluice-demo-')
}

/** Resolves to the URL that the service logs when it listens. */
async function startService(folder: string): Promise<string> {
  const child = spawn(process.execPath, ['dist/server.js'], {
    cwd: root,
    env: {
      ...process.env,
      ...{ NODE_ENV: 'development', HOST: '127.0.0.1', PORT: '0', DATA_DIR: folder, QUEUE_PREFIX: PREFIX },
      // Empty, so that a REDIS_URL in the environment or .env does not connect the demo to real queues.
      REDIS_URL: '',
      ...{ LOG_LEVEL: 'info', LOG_REQUESTS: 'none', SHUTDOWN_TIMEOUT: String(STOP_TIMEOUT_MS) },
    },
    stdio: ['ignore', 'pipe', 'inherit'],
    // Its own process group, so that Ctrl-C reaches only the demo, which stops the workers before the
    // service.
    detached: true,
  })
  const logged: string[] = []
  const listening = new Promise<string>((resolve) => {
    // Never closed: the service would block once the pipe is full.
    createInterface({ input: child.stdout }).on('line', (line) => {
      const message = messageOf(line)
      logged.push(message)
      const address = /^Server listening at (\S+)$/.exec(message)?.[1]
      if (address) resolve(address)
    })
  })
  children.push({ name: 'the service', child, started: listening })
  const exited = once(child, 'exit').then(([code]) => {
    throw new Error(`the service exited with code ${code}:\n  ${logged.join('\n  ')}`)
  })
  // The service also exits at the end of the demo, when this promise is no longer awaited.
  exited.catch(() => {})
  return untilAborted(Promise.race([listening, exited]))
}

async function startWorkers(socket: string, queues: string[]): Promise<void> {
  const child = fork(join(root, 'examples/demo-worker.ts'), [socket, PREFIX, ...queues], {
    cwd: root,
    execArgv: ['--import', 'tsx'],
  })
  const started = once(child, 'message')
  children.push({ name: 'the workers', child, started })
  const exited = once(child, 'exit').then(([code]) => {
    throw new Error(`the workers exited with code ${code}`)
  })
  exited.catch(() => {})
  await untilAborted(Promise.race([started, exited]))
}

async function enqueue(url: string, jobs: NewJob[]): Promise<{ id: string; deduplicated: boolean }[]> {
  const singles = jobs.slice(0, SINGLES).map((job) => post<EnqueueReply>(`${url}/jobs`, job))
  const stored: EnqueueReply[] = await Promise.all(singles)
  for (let at = SINGLES; at < jobs.length; at += BATCH_SIZE) {
    const part = jobs.slice(at, at + BATCH_SIZE)
    const { results } = await post<{ results: EnqueueReply[] }>(`${url}/jobs/batch`, { jobs: part })
    stored.push(...results)
  }
  const refused = stored.findIndex(({ status = 201 }) => status >= 400)
  if (refused >= 0) throw new Error(`job ${refused} was refused: ${JSON.stringify(stored[refused])}`)
  return stored
}

interface EnqueueReply {
  id: string
  deduplicated: boolean
  /** Only for an item of a batch. */
  status?: number
}

interface Finished {
  job: Job
  etag: string
}

async function followAll(url: string, ids: string[]): Promise<Map<string, Finished>> {
  const finished = new Map<string, Finished>()
  const report = () => console.log(`  ${finished.size} of ${ids.length} finished, ${counted.polls} polls`)
  const timer = setInterval(report, 1_000)
  try {
    await Promise.all(ids.map(async (id) => finished.set(id, await follow(url, id))))
  } finally {
    clearInterval(timer)
  }
  report()
  return finished
}

/** Polls one job until it has finished, honouring Retry-After and sending the ETag of the last response. */
async function follow(url: string, id: string): Promise<Finished> {
  let etag: string | undefined
  while (true) {
    const response = await poll(url, id, etag)
    etag = response.headers.get('etag') ?? undefined
    const job = response.status === 200 ? ((await response.json()) as Job) : undefined
    if (etag && (job?.state === 'completed' || job?.state === 'failed')) return { job, etag }
    const retryAfterMs = 1_000 * Number(response.headers.get('retry-after') ?? 1)
    await sleep(Math.min(retryAfterMs, MAX_PAUSE_MS), undefined, { signal })
  }
}

async function poll(url: string, id: string, etag: string | undefined): Promise<Response> {
  const headers: Record<string, string> = etag === undefined ? {} : { 'if-none-match': etag }
  const response = await fetch(`${url}/jobs/${encodeURIComponent(id)}`, { headers, signal })
  if (response.status !== 200 && response.status !== 304)
    throw new Error(`GET /jobs/${id} answered ${response.status}: ${await response.text()}`)
  counted.polls++
  if (response.status === 304) counted.notModified++
  if (response.headers.get('cache-status')?.startsWith('sluice; hit')) counted.fromMemory++
  return response
}

async function post<T>(url: string, body: unknown): Promise<T> {
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body), signal })
  if (!response.ok) throw new Error(`POST ${url} answered ${response.status}: ${await response.text()}`)
  return (await response.json()) as T
}

async function getJson<T>(url: string): Promise<T> {
  const response = await fetch(url, { signal })
  return (await response.json()) as T
}

/** Compares a finished job with the outcome that its data implies. */
function problemOf(job: NewJob, { id, state, result, error }: Job): string[] {
  const { card, to, width } = job.data
  const mustFail =
    card === '4000000000000002' || width === 0 || (to !== undefined && !String(to).includes('@'))
  const expected = mustFail ? 'failed' : 'completed'
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
  const killTimer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS + 1_000)
  child.kill('SIGTERM')
  const [code, killedBy] = (await exited) as [number | null, string | null]
  clearTimeout(killTimer)
  if (code !== 0) {
    console.error(`${name} did not stop cleanly: ${killedBy ?? `exit code ${code}`}`)
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
