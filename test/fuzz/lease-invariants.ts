/**
 * Invariants of leases beyond the document: a job has one lease at a time; a held lease can be settled once, and extended
 * until then; a lease that the service did not grant is invalid; and the outcome of a job shows in its status.
 */
import { isDeepStrictEqual } from 'node:util'
import { type ErrorCode, errorTable } from '../../src/errors.ts'
import type { HttpResponse, Send } from './clients.ts'
import { INTERNALS } from './contract.ts'
import type { Invariants } from './invariants.ts'
import { readJob, wellFormed } from './job-invariants.ts'
import type { Lease, LeaseBook, LeasedJob } from './lease-book.ts'
import { bodyOf, type Case } from './operations.ts'
import { createOverlapTracker, type Span } from './overlaps.ts'

interface Item {
  lease: string
  leaseMs?: number
  progress?: unknown
  log?: string
  outcome?: 'complete' | 'fail' | 'retry' | 'release'
  result?: unknown
  error?: { message: string }
  unrecoverable?: boolean
  delay?: number
}

interface Next {
  queue?: string | undefined
  max?: number
  wait?: number
  leaseMs?: number
}

interface Result {
  index: number
  status: number
  id?: string
  error?: { code: ErrorCode; status: number }
  expiresAt?: string
}

const LEASE_MS = 30_000
/** The codes that an item may be rejected with. */
const ITEM_CODES: ErrorCode[] = ['LEASE_LOST', 'JOB_NOT_FOUND', 'INVALID_LEASE']
/** The codes of an item that was refused before its lease was read. */
const REFUSALS: ErrorCode[] = ['INVALID_ITEM', 'JSON_TOO_DEEP', 'FORBIDDEN_KEY', 'PAYLOAD_TOO_LARGE']
const isRefused = ({ error }: Result) => error !== undefined && REFUSALS.includes(error.code)
/** A case may have any value in its place. */
const isPositive = (value: unknown) => typeof value === 'number' && value > 0

/** How many jobs of one response are read one by one. */
const READ_MAX = 3
/** A delay that does not end during the check. */
const LONG_MS = 60_000

export interface LeaseInvariants extends Invariants {
  /** Queues that may have had a pending take. */
  waitedFor: Set<string>
}

export function createLeaseInvariants(book: LeaseBook): LeaseInvariants {
  const overlaps = createOverlapTracker()
  const waitedFor = new Set<string>()
  const spansOf = new WeakMap<Case, Map<string, Span>>()

  function begin(testCase: Case, settles: boolean): void {
    const own = new Map<string, Span>()
    spansOf.set(testCase, own)
    for (const { lease: text, leaseMs = LEASE_MS } of itemsOf(testCase)) {
      const lease = book.find(text)
      if (!lease) continue
      if (!settles) lease.untilMs = Math.min(lease.untilMs, Date.now() + leaseMs)
      else if (!own.has(text)) lease.settles++
      if (!own.has(text)) own.set(text, overlaps.begin(text))
    }
  }

  function end(testCase: Case): void {
    for (const span of spansOf.get(testCase)?.values() ?? []) span.end()
    book.returnUnused(testCase)
  }

  async function settled(testCase: Case, response: HttpResponse, send: Send): Promise<string[]> {
    if (response.status !== 200 && response.status !== 207) {
      // No item was processed.
      for (const text of spansOf.get(testCase)!.keys()) book.find(text)!.settles--
      return []
    }
    const { next } = bodyOf(testCase) as { next?: Next }
    const items = itemsOf(testCase)
    const { results, jobs } = JSON.parse(response.body) as { results: Result[]; jobs: LeasedJob[] }
    const faults = resultFaults(testCase, results, response)
    for (const [index, { lease: text }] of items.entries()) {
      const lease = book.find(text)
      if (!lease || results[index]?.status !== 200) continue
      if (lease.settledAtMs !== undefined) faults.push('a lease was settled twice')
      lease.settledAtMs = Date.now()
      book.retire(lease)
    }
    const queue = next?.queue ?? results.find(({ id }) => id !== undefined)?.id?.split(':', 1)[0]
    if (!next && jobs.length > 0) faults.push('there are jobs without a request for them')
    if (next) faults.push(...(await jobFaults(jobs, { ...next, queue }, response, send)))
    if (queue !== undefined && isPositive(next?.wait)) waitedFor.add(queue)
    const at = results.findIndex(({ status }) => status === 200)
    const done = book.find(items[at]?.lease ?? '')
    if (done?.job) faults.push(...(await outcomeFaults(items[at]!, done.job, response, send)))
    return faults
  }

  async function extended(testCase: Case, response: HttpResponse, send: Send): Promise<string[]> {
    if (response.status !== 200 && response.status !== 207) return []
    const items = itemsOf(testCase)
    const { results } = JSON.parse(response.body) as { results: Result[] }
    const faults = resultFaults(testCase, results, response)
    let isChecked = false
    for (const [index, item] of items.entries()) {
      const { lease: text, leaseMs = LEASE_MS } = item
      const { status, expiresAt } = results[index] ?? {}
      if ((status === 200) !== (expiresAt !== undefined))
        faults.push('expiresAt is missing, or present without a lease')
      if (expiresAt === undefined) continue
      faults.push(...expiryFaults(expiresAt, leaseMs, response))
      const span = spansOf.get(testCase)!.get(text)
      const isOnly = items.filter(({ lease }) => lease === text).length === 1
      if (!span?.isAlone() || !isOnly) continue
      book.find(text)!.untilMs = Date.parse(expiresAt)
      if (isChecked || (item.progress === undefined && item.log === undefined)) continue
      isChecked = true
      faults.push(...(await progressFaults(item, results[index]!.id!, span, send)))
    }
    return faults
  }

  /** Checks the result of each item against what is known of its lease. */
  function resultFaults(testCase: Case, results: Result[], response: HttpResponse): string[] {
    const items = itemsOf(testCase)
    const faults: string[] = []
    const isAll = results.every(({ status }) => status === 200)
    if ((response.status === 200) !== isAll)
      faults.push(`the status is ${response.status}, but those of the items differ`)
    if (results.length !== items.length) faults.push('an item has no result')
    if (!results.every(({ index }, at) => index === at)) faults.push('the results are out of order')
    for (const [index, item] of items.entries()) {
      const result = results[index]
      if (result) faults.push(...shapeFaults(result), ...leaseFaults(item, result, response))
    }
    for (const text of spansOf.get(testCase)!.keys()) faults.push(...leaseHeldFaults(text, items, results))
    return faults
  }

  function leaseFaults(item: Item, result: Result, { atMs }: HttpResponse): string[] {
    const { status, id, error } = result
    if (isRefused(result)) return id === undefined ? [] : ['a refused item names a job']
    const lease = book.find(item.lease)
    const said = error?.code ?? status
    if (!lease) return said === 'INVALID_LEASE' ? [] : [`an invalid lease gets ${said}`]
    if (said === 'INVALID_LEASE') return ['a valid lease gets INVALID_LEASE']
    if (!lease.job) return status === 200 ? ['a job that never existed was settled or extended'] : []
    if (id !== lease.job.id) return ['the result names another job']
    const wasSettled = lease.settledAtMs !== undefined && lease.settledAtMs < atMs
    return wasSettled && status === 200 ? ['a settled lease is still held'] : []
  }

  /** A lease that has not expired and that no other request settles allows one settlement and any extension. */
  function leaseHeldFaults(text: string, items: Item[], results: Result[]): string[] {
    const own = results.filter((_, index) => items[index]?.lease === text)
    const lease = book.find(text)!
    const isSettling = items.some(({ outcome }) => outcome !== undefined)
    const isHeld = Date.now() < lease.untilMs && lease.settles === (isSettling ? 1 : 0)
    if (!isHeld || own.some((result) => result.status === 200 || isRefused(result))) return []
    return [`a held lease gets ${own.map(({ error }) => error?.code)}`]
  }

  /** `wanted`: the request. */
  async function jobFaults(
    jobs: LeasedJob[],
    { queue, max = 1, leaseMs = LEASE_MS }: Next,
    response: HttpResponse,
    send: Send,
  ): Promise<string[]> {
    const holders = jobs.map(({ id }) => book.holder(id))
    const leases = jobs.map((job) => book.add(job))
    const faults = jobs.flatMap(({ expiresAt }) => expiryFaults(expiresAt, leaseMs, response))
    if (jobs.length > max) faults.push(`${jobs.length} jobs instead of ${max}`)
    if (new Set(jobs.map(({ id }) => id)).size < jobs.length) faults.push('a job is returned twice')
    if (!jobs.every(({ id }) => id.startsWith(`${queue}:`))) faults.push('a job is of another queue')
    if (holders.some((holder) => holder)) faults.push('a leased job was given to another worker')
    for (const lease of leases.slice(0, READ_MAX)) faults.push(...(await activeFaults(lease, send)))
    for (const lease of leases) book.offer(lease)
    return faults
  }

  /** No other request knows this lease yet. */
  async function activeFaults({ job, untilMs }: Lease, send: Send): Promise<string[]> {
    const found = await readJob(job!.id, send)
    if (Date.now() >= untilMs) return []
    if (!found) return ['a leased job does not exist']
    const { state, name, data, attemptsMade, attempts } = found
    return [
      ...(state === 'active' ? [] : [`a leased job is ${state}`]),
      ...(attemptsMade + 1 === job!.attempt ? [] : [`it is attempt ${job!.attempt}, after ${attemptsMade}`]),
      ...(attempts === job!.attempts ? [] : [`it has ${attempts} attempts, not ${job!.attempts}`]),
      ...(name === job!.name && isDeepStrictEqual(data, job!.data)
        ? []
        : ['its name or data differ from those returned']),
    ]
  }

  return {
    begin(operationId, testCase) {
      if (operationId === 'settleLeases') begin(testCase, true)
      if (operationId === 'extendLeases') begin(testCase, false)
    },
    end,
    waitedFor,
    checks: {
      async takeLeases(testCase, response, send) {
        if (response.status !== 200 && response.status !== 204) return []
        const [, queue] = /^\/queues\/([^/]+)/.exec(testCase.url)!
        const wanted = { ...(bodyOf(testCase) as Next), queue: decodeURIComponent(queue!) }
        if (isPositive(wanted.wait)) waitedFor.add(wanted.queue)
        if (response.status === 204) return []
        const { jobs } = JSON.parse(response.body) as { jobs: LeasedJob[] }
        return [
          ...(jobs.length > 0 ? [] : ['there are no jobs, but the status is not 204']),
          ...(await jobFaults(jobs, wanted, response, send)),
        ]
      },
      settleLeases: settled,
      extendLeases: extended,
    },
  }
}

function shapeFaults({ status, error, id }: Result): string[] {
  if (status === 200) return error || id === undefined ? ['a successful item has an error, or no id'] : []
  if (!error) return ['a failed item has no error']
  return [
    ...([...ITEM_CODES, ...REFUSALS].includes(error.code) ? [] : [`an item has the code ${error.code}`]),
    ...(error.status === status && errorTable[error.code]?.status === status
      ? []
      : [`${error.code} has the status ${status}`]),
    ...(INTERNALS.test(JSON.stringify(error)) ? ['an item reveals internals'] : []),
  ]
}

/** Redis' clock, which the service estimates, may differ from that of this machine by part of a slow round trip. */
const CLOCK_ERROR_MS = 250

function isSince(sinceMs: number, ms: number): boolean {
  return ms >= sinceMs - CLOCK_ERROR_MS && ms <= Date.now() + CLOCK_ERROR_MS
}

/** The lease starts between the request and the response. */
function expiryFaults(expiresAt: string, leaseMs: number, { atMs }: HttpResponse): string[] {
  const fromMs = Date.parse(expiresAt) - leaseMs
  return isSince(atMs, fromMs) ? [] : ['expiresAt is not leaseMs from now']
}

/** Generated keys are never reused by another job. */
const GENERATED_KEY = /:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-/

/** The outcome shows in the status of the job, unless retention has removed it. */
async function outcomeFaults(
  item: Item,
  job: LeasedJob,
  { atMs }: HttpResponse,
  send: Send,
): Promise<string[]> {
  const found = GENERATED_KEY.test(job.id) ? await readJob(job.id, send) : undefined
  if (!found) return []
  const { state, result, error, delayedUntil, attemptsMade, deduplicationId } = found
  const isMade = attemptsMade >= job.attempt ? [] : ['the attempt was not counted']
  const { outcome, delay = 0, unrecoverable = false } = item
  if (outcome === 'complete') {
    const isKept = state === 'completed' && isDeepStrictEqual(result, item.result ?? null)
    return [...isMade, ...(isKept ? [] : [`a completed job is ${state}, or its result differs`])]
  }
  if (outcome === 'fail' && (unrecoverable || job.attempt >= job.attempts)) {
    const isKept = state === 'failed' && error?.message === wellFormed(item.error?.message ?? 'failed')
    return [...isMade, ...(isKept ? [] : [`a failed job is ${state}, or its error differs`])]
  }
  // Another job with its deduplication id may change its delay.
  if (outcome === 'release' || delay < LONG_MS || deduplicationId !== null) return []
  const fromMs = Date.parse(delayedUntil ?? '') - delay
  const attempts = outcome === 'fail' ? job.attempt : job.attempt - 1
  const isKept = state === 'delayed' && isSince(atMs, fromMs) && attemptsMade === attempts
  return isKept
    ? []
    : [`a retried job is ${state}, or due at another time, or its attempt was not counted right`]
}

/** Progress and log show in the job, unless another request has changed them. */
async function progressFaults(
  { progress, log }: Item,
  id: string,
  span: Span,
  send: Send,
): Promise<string[]> {
  const found = await readJob(id, send, 'logs')
  if (!found || !span.isAlone()) return []
  const isShown = progress === undefined || isDeepStrictEqual(found.progress, progress)
  const isLogged = log === undefined || found.logs?.at(-1) === wellFormed(log)
  return [...(isShown ? [] : ['the progress differs']), ...(isLogged ? [] : ['the log differs'])]
}

/** Empty if the body is not a list of items. An item that is not an object is refused. */
function itemsOf(testCase: Case): Item[] {
  try {
    const { items } = bodyOf(testCase) as { items?: Item[] }
    return Array.isArray(items)
      ? items.map((item) => (typeof item === 'object' && item !== null ? item : ({} as Item)))
      : []
  } catch {
    return []
  }
}
