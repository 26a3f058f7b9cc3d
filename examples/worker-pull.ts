/**
 * `npx tsx examples/worker-pull.ts`: a worker that speaks nothing but HTTP. Copy it, and put your work into `work`.
 *   take (long poll) → work, while leases are extended → settle what is done, taking as many more by the same request
 * A job whose lease was lost goes to another worker, so it may be done twice: let that do no harm. Work that blocks the
 * event loop also keeps its lease from being extended: use a thread. On SIGTERM and SIGINT no more jobs are taken, those
 * in hand may be finished within GRACE_MS (10000), the rest are released, and the exit code is 0.
 * Settings: SLUICE_URL (http://127.0.0.1:3000), SLUICE_KEY (an API key with the scope `work`), QUEUE (default),
 * CONCURRENCY (10; at most 100), LEASE_MS (30000).
 */
import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

const { SLUICE_URL = 'http://127.0.0.1:3000', SLUICE_KEY, QUEUE = 'default' } = process.env
const CONCURRENCY = Number(process.env['CONCURRENCY'] ?? 10)
const LEASE_MS = Number(process.env['LEASE_MS'] ?? 30_000)
const GRACE_MS = Number(process.env['GRACE_MS'] ?? 10_000)
const WAIT_S = 20
const TIMEOUT_MS = 10_000
const MAX_PAUSE_MS = 10_000
const terms = { leaseMs: LEASE_MS, worker: `${hostname()}:${process.pid}` }
const headers = {
  'content-type': 'application/json',
  ...(SLUICE_KEY ? { authorization: `Bearer ${SLUICE_KEY}` } : {}),
}

type Leased = { id: string; name: string; data: unknown; attempt: number; attempts: number; lease: string }
/** `progress`: set it to tell how far the work is. `signal`: the result is not wanted any more, so stop. */
type Job = Leased & { progress?: unknown; signal: AbortSignal }
class UnrecoverableError extends Error {}

/** Your work. What it returns is the result; what it throws fails the job, which is tried again by its attempts. */
async function work(job: Job): Promise<unknown> {
  const { fail, sleepMs = 0 } = (job.data ?? {}) as { fail?: unknown; sleepMs?: number }
  if (fail === 'for good') throw new UnrecoverableError('It was to fail for good')
  if (fail) throw new Error('It was to fail')
  for (let ms = 0; ms < sleepMs; ms += 100) {
    job.progress = Math.round((100 * ms) / sleepMs)
    await sleep(100, undefined, { signal: job.signal })
  }
  const text = JSON.stringify(job.data)
  return { sha256: createHash('sha256').update(text).digest('hex'), bytes: Buffer.byteLength(text) }
}

type Outcome = { outcome: string; result?: unknown; error?: object; unrecoverable?: boolean }
type Held = { job: Job; controller: AbortController; outcome?: Outcome }
/** Jobs in hand, by lease, until they are settled; with an outcome once they are done. */
const held = new Map<string, Held>()
const stopping = new AbortController()
let longPoll = new AbortController()
let isTaking = false
let isSettling = false

/** Takes jobs while there is room for any. */
async function take(): Promise<void> {
  if (isTaking) return
  isTaking = true
  for (let failures = 0; held.size < CONCURRENCY && !stopping.signal.aborted; ) {
    longPoll = new AbortController()
    const body = { ...terms, max: CONCURRENCY - held.size, wait: WAIT_S }
    const path = `/queues/${encodeURIComponent(QUEUE)}/leases`
    try {
      const { jobs } = await post(path, body, WAIT_S * 1_000 + TIMEOUT_MS, longPoll)
      for (const job of jobs) void begin(job)
      failures = 0
    } catch (error) {
      if (stopping.signal.aborted) break
      if (isRefusal(error)) void stop(1)
      await pause(error, failures++)
    }
  }
  isTaking = false
}

async function begin(leased: Leased): Promise<void> {
  const controller = new AbortController()
  const one: Held = { job: { ...leased, signal: controller.signal }, controller }
  held.set(leased.lease, one)
  const outcome = stopping.signal.aborted ? { outcome: 'release' } : await outcomeOf(one.job)
  // Released meanwhile, or its lease was lost: then there is nothing to say, but room for another.
  if (one.outcome) return
  if (controller.signal.aborted) held.delete(leased.lease)
  else one.outcome = outcome
  void settle()
}

async function outcomeOf(job: Job): Promise<Outcome> {
  try {
    const result = await work(job)
    // What JSON cannot say throws here, where it fails this job alone.
    JSON.stringify(result)
    return { outcome: 'complete', result }
  } catch (thrown) {
    return failureOf(thrown)
  }
}

function failureOf(thrown: unknown): Outcome {
  const { message, stack = '' } = thrown instanceof Error ? thrown : new Error(String(thrown))
  const error = { message: message.slice(0, 10_000), stack: stack.slice(0, 10_000) }
  return { outcome: 'fail', error, unrecoverable: thrown instanceof UnrecoverableError }
}

/** Settles what is done; what gets done while one request is under way goes together into the next. */
async function settle(): Promise<void> {
  if (isSettling) return
  isSettling = true
  for (let failures = 0, most = 100; ; ) {
    const done = [...held.values()].filter(({ outcome }) => outcome).slice(0, most)
    const [first] = done
    if (!first) break
    try {
      await tell(done)
      failures = 0
    } catch (error) {
      if (!isRefusal(error)) await pause(error, failures++)
      // Together they may have been too large. What is refused alone fails; if even that is refused, it is let go.
      else if (done.length > 1) most = 1
      else if (first.outcome?.outcome === 'complete') first.outcome = failureOf(error)
      else held.delete(first.job.lease)
    }
  }
  isSettling = false
  void take()
}

/** Throws when some have to be told again. */
async function tell(done: Held[]): Promise<void> {
  const items = done.map(({ job, outcome }) => ({ lease: job.lease, ...outcome }))
  // It does not wait for jobs, since the answer also says what became of these.
  const next = stopping.signal.aborted ? undefined : { ...terms, queue: QUEUE, max: items.length }
  const { results, jobs } = await post('/leases/settle', { items, next }, TIMEOUT_MS)
  for (const job of jobs) void begin(job)
  for (const { index, error } of results) {
    const { id, lease } = done[index]!.job
    // With 409 LEASE_LOST another worker has the job, or will: this result is dropped.
    if (error) console.warn(`${id}: ${error.detail}`)
    if (!error?.retryable) held.delete(lease)
  }
  void take()
  if (results.some(({ error }) => error?.retryable)) throw new Error('Some jobs could not be settled yet')
}

/** Extends all that is in hand, also what waits to be settled; sooner again when that failed. */
async function keepLeases(): Promise<void> {
  for (let ms = LEASE_MS / 3; ; ) {
    await sleep(ms)
    ms = LEASE_MS / 3
    const kept = [...held.values()].filter(({ controller }) => !controller.signal.aborted).slice(0, 100)
    if (kept.length === 0) continue
    const items = kept.map(({ job }) => ({ lease: job.lease, leaseMs: LEASE_MS, progress: job.progress }))
    try {
      const { results } = await post('/leases/extend', { items }, LEASE_MS / 3)
      for (const { index, error } of results) if (error && !error.retryable) lose(kept[index]!, error.detail)
    } catch (error) {
      console.warn(`Leases could not be extended: ${reasonOf(error)}`)
      ms = LEASE_MS / 10
    }
  }
}

function lose({ job, controller, outcome }: Held, detail: string): void {
  // Of one that is done it may only mean that it has just been settled.
  if (!outcome) console.warn(`${job.id}: ${detail}`)
  controller.abort()
}

type Result = { index: number; error?: { detail: string; retryable: boolean } }
type Answer = { jobs: Leased[]; results: Result[] }
type HttpError = Error & { status?: number; retryAfterS?: number }

async function post(path: string, body: object, timeoutMs: number, controller = new AbortController()) {
  const timer = setTimeout(() => controller.abort(new Error(`No answer in ${timeoutMs} ms`)), timeoutMs)
  try {
    const request = { method: 'POST', headers, body: JSON.stringify(body), signal: controller.signal }
    const response = await fetch(`${SLUICE_URL}${path}`, request)
    const text = await response.text()
    if (response.ok) return JSON.parse(text || '{"jobs":[]}') as Answer
    const { status } = response
    const retryAfterS = Number(response.headers.get('retry-after')) || 0
    throw Object.assign(new Error(`${status} ${text.slice(0, 500)}`), { status, retryAfterS })
  } finally {
    clearTimeout(timer)
  }
}

/** The same request would be refused again. */
function isRefusal(error: unknown): boolean {
  const { status = 500 } = error as HttpError
  return status < 500 && ![408, 425, 429].includes(status)
}

/** fetch() hides it. */
function reasonOf(error: unknown): string {
  const { cause } = error as Error
  return cause ? `${error} (${cause})` : `${error}`
}

/** As long as the service says; else longer each time, to MAX_PAUSE_MS. Never all workers until the same moment. */
async function pause(error: unknown, failures: number): Promise<void> {
  const { retryAfterS = 0 } = error as HttpError
  const backoffMs = Math.min(MAX_PAUSE_MS, 250 * 2 ** failures) * (0.5 + Math.random() / 2)
  const ms = Math.round(retryAfterS * 1_000 * (1 + Math.random() / 4) || backoffMs)
  console.warn(`${reasonOf(error)}; again in ${ms} ms`)
  // At the end there is no time to lose.
  if (stopping.signal.aborted) await sleep(Math.min(ms, 500))
  else await sleep(ms, undefined, { signal: stopping.signal }).catch(() => {})
}

async function stop(exitCode: number): Promise<void> {
  if (stopping.signal.aborted) return
  stopping.abort()
  longPoll.abort()
  await untilIdle(GRACE_MS)
  for (const one of held.values()) {
    one.outcome ??= { outcome: 'release' }
    one.controller.abort()
  }
  void settle()
  await untilIdle(5_000)
  process.exit(exitCode)
}

async function untilIdle(ms: number): Promise<void> {
  const deadline = Date.now() + ms
  while ((held.size > 0 || isTaking) && Date.now() < deadline) await sleep(20)
}

process.once('SIGTERM', () => stop(0))
process.once('SIGINT', () => stop(0))
console.log(`Working ${QUEUE} of ${SLUICE_URL}, ${CONCURRENCY} jobs at a time`)
void take()
void keepLeases()
