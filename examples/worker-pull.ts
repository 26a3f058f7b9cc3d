/**
 * `npx tsx examples/worker-pull.ts`: a worker that needs nothing but HTTP. Copy it and replace `work` with
 * your own.
 *   take (long poll) → work, while leases are extended → settle finished jobs and take new ones in the same request
 * A job whose lease is lost goes to another worker and may run twice, so `work` should be idempotent. Work
 * that blocks the event loop also blocks the lease extension; run it in a thread. SIGTERM and SIGINT stop
 * taking: leased jobs may finish within GRACE_MS (10000), the rest are released, and the exit code is 0.
 * Settings: SLUICE_URL (http://127.0.0.1:3000), SLUICE_KEY (an API key with the scope `work`), QUEUE
 * (default), CONCURRENCY (10; at most 100), LEASE_MS (30000).
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
const leaseOptions = { leaseMs: LEASE_MS, worker: `${hostname()}:${process.pid}` }
const headers = {
  'content-type': 'application/json',
  ...(SLUICE_KEY ? { authorization: `Bearer ${SLUICE_KEY}` } : {}),
}

type LeasedJob = { id: string; name: string; data: unknown; attempt: number; attempts: number; lease: string }
/**
 * Set `progress` to report it with the next extension. `signal` aborts when the result is no longer wanted.
 */
type Job = LeasedJob & { progress?: unknown; signal: AbortSignal }
class UnrecoverableError extends Error {}

/**
 * Your work. The return value becomes the result; an error fails the attempt, and the job is retried if it
 * has more.
 */
async function work(job: Job): Promise<unknown> {
  const { fail, sleepMs = 0 } = (job.data ?? {}) as { fail?: unknown; sleepMs?: number }
  if (fail === 'permanently') throw new UnrecoverableError('Failed permanently as requested')
  if (fail) throw new Error('Failed as requested')
  for (let ms = 0; ms < sleepMs; ms += 100) {
    job.progress = Math.round((100 * ms) / sleepMs)
    await sleep(100, undefined, { signal: job.signal })
  }
  const text = JSON.stringify(job.data)
  return { sha256: createHash('sha256').update(text).digest('hex'), bytes: Buffer.byteLength(text) }
}

type Outcome = { outcome: string; result?: unknown; error?: object; unrecoverable?: boolean }
type Lease = { job: Job; controller: AbortController; outcome?: Outcome }
/** Leased jobs by lease token, until they are settled; a finished job has an outcome. */
const leases = new Map<string, Lease>()
const stopping = new AbortController()
let longPoll = new AbortController()
let isTaking = false
let isSettling = false

/** Takes jobs while there is capacity. */
async function take(): Promise<void> {
  if (isTaking) return
  isTaking = true
  for (let failures = 0; leases.size < CONCURRENCY && !stopping.signal.aborted; ) {
    longPoll = new AbortController()
    const body = { ...leaseOptions, max: CONCURRENCY - leases.size, wait: WAIT_S }
    const path = `/queues/${encodeURIComponent(QUEUE)}/leases`
    try {
      const { jobs } = await post(path, body, WAIT_S * 1_000 + TIMEOUT_MS, longPoll)
      for (const job of jobs) void start(job)
      failures = 0
    } catch (error) {
      if (stopping.signal.aborted) break
      if (isRefusal(error)) void stop(1)
      await pause(error, failures++)
    }
  }
  isTaking = false
}

async function start(leased: LeasedJob): Promise<void> {
  const controller = new AbortController()
  const lease: Lease = { job: { ...leased, signal: controller.signal }, controller }
  leases.set(leased.lease, lease)
  const outcome = stopping.signal.aborted ? { outcome: 'release' } : await outcomeOf(lease.job)
  // The job was released while it ran.
  if (lease.outcome) return
  // If the lease was lost there is nothing to settle, only capacity for another job.
  if (controller.signal.aborted) leases.delete(leased.lease)
  else lease.outcome = outcome
  void settle()
}

async function outcomeOf(job: Job): Promise<Outcome> {
  try {
    const result = await work(job)
    // A result that JSON cannot express throws here, where it fails only this job.
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

/** Settles finished jobs in batches; jobs that finish during a request go into the next one. */
async function settle(): Promise<void> {
  if (isSettling) return
  isSettling = true
  for (let failures = 0, batchMax = 100; ; ) {
    const finished = [...leases.values()].filter(({ outcome }) => outcome).slice(0, batchMax)
    const [first] = finished
    if (!first) break
    try {
      await settleBatch(finished)
      failures = 0
    } catch (error) {
      if (!isRefusal(error)) await pause(error, failures++)
      // The batch may have been too large. A single result that is refused fails its job; a refused failure
      // is dropped.
      else if (finished.length > 1) batchMax = 1
      else if (first.outcome?.outcome === 'complete') first.outcome = failureOf(error)
      else leases.delete(first.job.lease)
    }
  }
  isSettling = false
  void take()
}

/** Throws when some jobs have to be settled again. */
async function settleBatch(finished: Lease[]): Promise<void> {
  const items = finished.map(({ job, outcome }) => ({ lease: job.lease, ...outcome }))
  // Without `wait`, because the response also has the results of these jobs.
  const next = stopping.signal.aborted ? undefined : { ...leaseOptions, queue: QUEUE, max: items.length }
  const { results, jobs } = await post('/leases/settle', { items, next }, TIMEOUT_MS)
  for (const job of jobs) void start(job)
  for (const { index, status, error } of results) {
    const { job, outcome } = finished[index]!
    if (error) console.warn(`${job.id}: ${error.detail}`)
    // A result that is refused, because it is too large for example, fails its job.
    if (error && [400, 413, 422].includes(status) && outcome?.outcome === 'complete')
      finished[index]!.outcome = failureOf(new Error(error.detail))
    // After 409 LEASE_LOST another worker has the job, or will get it: this result is dropped.
    else if (!error?.retryable) leases.delete(job.lease)
  }
  void take()
  if (results.some(({ error }) => error?.retryable)) throw new Error('Some jobs could not be settled yet')
}

/** Extends the leases of all jobs, also of those that wait to be settled; sooner after a failed request. */
async function keepLeases(): Promise<void> {
  for (let ms = LEASE_MS / 3; ; ) {
    await sleep(ms)
    ms = LEASE_MS / 3
    const kept = [...leases.values()].filter(({ controller }) => !controller.signal.aborted).slice(0, 100)
    if (kept.length === 0) continue
    const items = kept.map(({ job }) => ({ lease: job.lease, leaseMs: LEASE_MS, progress: job.progress }))
    try {
      const { results } = await post('/leases/extend', { items }, LEASE_MS / 3)
      for (const { index, error } of results)
        if (error && !error.retryable) markLost(kept[index]!, error.detail)
    } catch (error) {
      console.warn(`Leases could not be extended: ${reasonOf(error)}`)
      ms = LEASE_MS / 10
    }
  }
}

function markLost({ job, controller, outcome }: Lease, detail: string): void {
  // A finished job may just have been settled, which ends its lease too.
  if (!outcome) console.warn(`${job.id}: ${detail}`)
  controller.abort()
}

type Result = { index: number; status: number; error?: { detail: string; retryable: boolean } }
type Reply = { jobs: LeasedJob[]; results: Result[] }
type HttpError = Error & { status?: number; retryAfterS?: number }

async function post(path: string, body: object, timeoutMs: number, controller = new AbortController()) {
  const timer = setTimeout(() => controller.abort(new Error(`No response within ${timeoutMs} ms`)), timeoutMs)
  try {
    const request = { method: 'POST', headers, body: JSON.stringify(body), signal: controller.signal }
    const response = await fetch(`${SLUICE_URL}${path}`, request)
    const text = await response.text()
    if (response.ok) return JSON.parse(text || '{"jobs":[]}') as Reply
    const { status } = response
    const retryAfterS = Number(response.headers.get('retry-after')) || 0
    throw Object.assign(new Error(`${status} ${text.slice(0, 500)}`), { status, retryAfterS })
  } finally {
    clearTimeout(timer)
  }
}

/** Whether the same request would be refused again. */
function isRefusal(error: unknown): boolean {
  const { status = 500 } = error as HttpError
  return status < 500 && ![408, 425, 429].includes(status)
}

/** fetch() puts the reason into `cause`. */
function reasonOf(error: unknown): string {
  const { cause } = error as Error
  return cause ? `${error} (${cause})` : `${error}`
}

/**
 * Waits for Retry-After, or exponentially longer up to MAX_PAUSE_MS, with jitter so that workers spread out.
 */
async function pause(error: unknown, failures: number): Promise<void> {
  const { retryAfterS = 0 } = error as HttpError
  const backoffMs = Math.min(MAX_PAUSE_MS, 250 * 2 ** failures) * (0.5 + Math.random() / 2)
  const ms = Math.round(retryAfterS * 1_000 * (1 + Math.random() / 4) || backoffMs)
  console.warn(`${reasonOf(error)}; retrying in ${ms} ms`)
  // While stopping, the grace period is short.
  if (stopping.signal.aborted) await sleep(Math.min(ms, 500))
  else await sleep(ms, undefined, { signal: stopping.signal }).catch(() => {})
}

async function stop(exitCode: number): Promise<void> {
  if (stopping.signal.aborted) return
  stopping.abort()
  longPoll.abort()
  await untilIdle(GRACE_MS)
  for (const lease of leases.values()) {
    lease.outcome ??= { outcome: 'release' }
    lease.controller.abort()
  }
  void settle()
  await untilIdle(5_000)
  process.exit(exitCode)
}

async function untilIdle(ms: number): Promise<void> {
  const deadline = Date.now() + ms
  while ((leases.size > 0 || isTaking) && Date.now() < deadline) await sleep(20)
}

process.once('SIGTERM', () => stop(0))
process.once('SIGINT', () => stop(0))
console.log(`Working on ${QUEUE} at ${SLUICE_URL}, ${CONCURRENCY} jobs at a time`)
void take()
void keepLeases()
