/**
 * What must hold of leases beyond the document: a job is held by one at a time, whoever holds it can settle it once and
 * extend it until then, a lease that the service has not made is none, and what was said of a job is seen of it.
 */
import { isDeepStrictEqual } from 'node:util'
import { type ErrorCode, errorTable } from '../../src/errors.ts'
import type { Answer, Ask } from './clients.ts'
import { INSIDES } from './contract.ts'
import { readJob, wellFormed } from './job-promises.ts'
import type { Lease, LeaseBook, LeasedJob } from './lease-book.ts'
import { bodyOf, type Case } from './operations.ts'
import type { Promises } from './promises.ts'
import { createTurns, type Turn } from './turns.ts'

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
/** Codes of an item that cannot be had. */
const REFUSALS: ErrorCode[] = ['LEASE_LOST', 'JOB_NOT_FOUND', 'INVALID_LEASE']
/** Of the jobs of one answer so many are looked at one by one. */
const LOOKED_AT = 3
/** A delay that does not end while one looks. */
const LONG_MS = 60_000

export interface LeasePromises extends Promises {
  /** Queues where somebody may have stood in line for a job. */
  waitedFor: Set<string>
}

export function createLeasePromises(book: LeaseBook): LeasePromises {
  const turns = createTurns()
  const waitedFor = new Set<string>()
  const turnsOf = new WeakMap<Case, Map<string, Turn>>()

  function begin(asked: Case, settles: boolean): void {
    const own = new Map<string, Turn>()
    turnsOf.set(asked, own)
    for (const { lease: text, leaseMs = LEASE_MS } of itemsOf(asked)) {
      const lease = book.find(text)
      if (!lease) continue
      if (!settles) lease.untilMs = Math.min(lease.untilMs, Date.now() + leaseMs)
      else if (!own.has(text)) lease.settles++
      if (!own.has(text)) own.set(text, turns.begin(text))
    }
  }

  function end(asked: Case): void {
    for (const turn of turnsOf.get(asked)?.values() ?? []) turn.end()
    book.takeBack(asked)
  }

  async function settled(asked: Case, answer: Answer, ask: Ask): Promise<string[]> {
    if (answer.status !== 200 && answer.status !== 207) {
      // Nothing was done with any of them.
      for (const text of turnsOf.get(asked)!.keys()) book.find(text)!.settles--
      return []
    }
    const { next } = bodyOf(asked) as { next?: Next }
    const items = itemsOf(asked)
    const { results, jobs } = JSON.parse(answer.body) as { results: Result[]; jobs: LeasedJob[] }
    const faults = resultFaults(asked, results, answer)
    for (const [index, { lease: text }] of items.entries()) {
      const lease = book.find(text)
      if (!lease || results[index]?.status !== 200) continue
      if (lease.settledAtMs !== undefined) faults.push('a lease was settled twice')
      lease.settledAtMs = Date.now()
      book.retire(lease)
    }
    const queue = next?.queue ?? results.find(({ id }) => id !== undefined)?.id?.split(':', 1)[0]
    if (!next && jobs.length > 0) faults.push('there are jobs that nobody asked for')
    if (next) faults.push(...(await jobFaults(jobs, { ...next, queue }, answer, ask)))
    if (queue !== undefined && Number(next?.wait) > 0) waitedFor.add(queue)
    const at = results.findIndex(({ status }) => status === 200)
    const done = book.find(items[at]?.lease ?? '')
    if (done?.job) faults.push(...(await outcomeFaults(items[at]!, done.job, answer, ask)))
    return faults
  }

  async function extended(asked: Case, answer: Answer, ask: Ask): Promise<string[]> {
    if (answer.status !== 200 && answer.status !== 207) return []
    const items = itemsOf(asked)
    const { results } = JSON.parse(answer.body) as { results: Result[] }
    const faults = resultFaults(asked, results, answer)
    let isNoted = false
    for (const [index, item] of items.entries()) {
      const { lease: text, leaseMs = LEASE_MS } = item
      const { status, expiresAt } = results[index] ?? {}
      if ((status === 200) !== (expiresAt !== undefined))
        faults.push('expiresAt is where nothing is held, or missing')
      if (expiresAt === undefined) continue
      faults.push(...expiryFaults(expiresAt, leaseMs, answer))
      const turn = turnsOf.get(asked)!.get(text)
      const isOnly = items.filter(({ lease }) => lease === text).length === 1
      if (!turn?.isAlone() || !isOnly) continue
      book.find(text)!.untilMs = Date.parse(expiresAt)
      if (isNoted || (item.progress === undefined && item.log === undefined)) continue
      isNoted = true
      faults.push(...(await noteFaults(item, results[index]!.id!, turn, ask)))
    }
    return faults
  }

  /** What each item must have come to, by what is known of its lease. */
  function resultFaults(asked: Case, results: Result[], answer: Answer): string[] {
    const items = itemsOf(asked)
    const faults: string[] = []
    const isAll = results.every(({ status }) => status === 200)
    if ((answer.status === 200) !== isAll) faults.push(`it is ${answer.status}, and not all are`)
    if (results.length !== items.length) faults.push('not every item has its result')
    if (!results.every(({ index }, at) => index === at)) faults.push('the results are out of order')
    for (const [index, item] of items.entries()) {
      const result = results[index]
      if (result) faults.push(...shapeFaults(result), ...leaseFaults(item, result, answer))
    }
    for (const text of turnsOf.get(asked)!.keys()) faults.push(...heldFaults(text, items, results))
    return faults
  }

  function leaseFaults(item: Item, { status, id, error }: Result, { atMs }: Answer): string[] {
    const lease = book.find(item.lease)
    const said = error?.code ?? status
    if (!lease) return said === 'INVALID_LEASE' ? [] : [`a lease that is none is ${said}`]
    if (said === 'INVALID_LEASE') return ['a lease of this service is INVALID_LEASE']
    if (!lease.job) return status === 200 ? ['a job that never was is settled or extended'] : []
    if (id !== lease.job.id) return ['the result names another job']
    const wasSettled = lease.settledAtMs !== undefined && lease.settledAtMs < atMs
    return wasSettled && status === 200 ? ['a lease that was settled is held still'] : []
  }

  /** A lease that nobody else settles and that has not run out is good for one settlement, and any extension. */
  function heldFaults(text: string, items: Item[], results: Result[]): string[] {
    const own = results.filter((_, index) => items[index]?.lease === text)
    const lease = book.find(text)!
    const isSettling = items.some(({ outcome }) => outcome !== undefined)
    const isHeld = Date.now() < lease.untilMs && lease.settles === (isSettling ? 1 : 0)
    if (!isHeld || own.some(({ status }) => status === 200)) return []
    return [`a lease that is held is ${own.map(({ error }) => error?.code)}`]
  }

  /** `wanted`: what was asked for. */
  async function jobFaults(
    jobs: LeasedJob[],
    { queue, max = 1, leaseMs = LEASE_MS }: Next,
    answer: Answer,
    ask: Ask,
  ): Promise<string[]> {
    const holders = jobs.map(({ id }) => book.holder(id))
    const leases = jobs.map((job) => book.enter(job))
    const faults = jobs.flatMap(({ expiresAt }) => expiryFaults(expiresAt, leaseMs, answer))
    if (jobs.length > max) faults.push(`${jobs.length} jobs instead of ${max}`)
    if (new Set(jobs.map(({ id }) => id)).size < jobs.length) faults.push('a job is there twice')
    if (!jobs.every(({ id }) => id.startsWith(`${queue}:`))) faults.push('a job is of another queue')
    if (holders.some((holder) => holder)) faults.push('a job was given away that somebody holds')
    for (const lease of leases.slice(0, LOOKED_AT)) faults.push(...(await activeFaults(lease, ask)))
    for (const lease of leases) book.offer(lease)
    return faults
  }

  /** Nobody else knows of this lease yet. */
  async function activeFaults({ job, untilMs }: Lease, ask: Ask): Promise<string[]> {
    const found = await readJob(job!.id, ask)
    if (Date.now() >= untilMs) return []
    if (!found) return ['a job that is held is not there']
    const { state, name, data, attemptsMade, attempts } = found
    return [
      ...(state === 'active' ? [] : [`a job that is held is ${state}`]),
      ...(attemptsMade + 1 === job!.attempt ? [] : [`it is attempt ${job!.attempt}, after ${attemptsMade}`]),
      ...(attempts === job!.attempts ? [] : [`it has ${attempts} attempts, not ${job!.attempts}`]),
      ...(name === job!.name && isDeepStrictEqual(data, job!.data)
        ? []
        : ['it is told otherwise than it is']),
    ]
  }

  return {
    begin(operationId, asked) {
      if (operationId === 'settleLeases') begin(asked, true)
      if (operationId === 'extendLeases') begin(asked, false)
    },
    end,
    waitedFor,
    checks: {
      async takeLeases(asked, answer, ask) {
        if (answer.status !== 200 && answer.status !== 204) return []
        const [, queue] = /^\/queues\/([^/]+)/.exec(asked.url)!
        const wanted = { ...(bodyOf(asked) as Next), queue: decodeURIComponent(queue!) }
        if (Number(wanted.wait) > 0) waitedFor.add(wanted.queue)
        if (answer.status === 204) return []
        const { jobs } = JSON.parse(answer.body) as { jobs: LeasedJob[] }
        return [
          ...(jobs.length > 0 ? [] : ['there are no jobs, and it is not 204']),
          ...(await jobFaults(jobs, wanted, answer, ask)),
        ]
      },
      settleLeases: settled,
      extendLeases: extended,
    },
  }
}

function shapeFaults({ status, error, id }: Result): string[] {
  if (status === 200) return error || id === undefined ? ['an item that is done has an error, or no id'] : []
  if (!error) return ['an item that is not done has no error']
  return [
    ...(REFUSALS.includes(error.code) ? [] : [`an item is ${error.code}`]),
    ...(error.status === status && errorTable[error.code]?.status === status
      ? []
      : [`${error.code} is ${status}`]),
    ...(INSIDES.test(JSON.stringify(error)) ? ['an item tells what is inside'] : []),
  ]
}

/** It begins between the request and its answer. */
function expiryFaults(expiresAt: string, leaseMs: number, { atMs }: Answer): string[] {
  const fromMs = Date.parse(expiresAt) - leaseMs
  return fromMs >= atMs && fromMs <= Date.now() ? [] : ['expiresAt is not leaseMs from now']
}

/** Keys that nobody chose are of one job only, however often others are added and removed. */
const OWN_KEY = /:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-/

/** What was said of the job is seen of it, unless it is gone: retention may have removed it. */
async function outcomeFaults(item: Item, job: LeasedJob, { atMs }: Answer, ask: Ask): Promise<string[]> {
  const found = OWN_KEY.test(job.id) ? await readJob(job.id, ask) : undefined
  if (!found) return []
  const { state, result, error, delayedUntil, attemptsMade, deduplicationId } = found
  const isMade = attemptsMade >= job.attempt ? [] : ['the attempt does not count']
  const { outcome, delay = 0, unrecoverable = false } = item
  if (outcome === 'complete') {
    const isKept = state === 'completed' && isDeepStrictEqual(result, asStored(item.result ?? null))
    return [...isMade, ...(isKept ? [] : [`what completed is ${state}, or its result is another`])]
  }
  if (outcome === 'fail' && (unrecoverable || job.attempt >= job.attempts)) {
    const isKept = state === 'failed' && error?.message === wellFormed(item.error?.message ?? 'failed')
    return [...isMade, ...(isKept ? [] : [`what failed for good is ${state}, or its error is another`])]
  }
  // Another job with its deduplication id may put it off, or bring it forward.
  if (outcome !== 'retry' || delay < LONG_MS || deduplicationId !== null) return []
  const fromMs = Date.parse(delayedUntil ?? '') - delay
  const isKept =
    state === 'delayed' && fromMs >= atMs && fromMs <= Date.now() && attemptsMade === job.attempt - 1
  return isKept ? [] : [`what is to be tried again is ${state}, or at another time, or it counts`]
}

/** Progress and log are seen while nobody else tells any. */
async function noteFaults({ progress, log }: Item, id: string, turn: Turn, ask: Ask): Promise<string[]> {
  const found = await readJob(id, ask, 'logs')
  if (!found || !turn.isAlone()) return []
  const isShown = progress === undefined || isDeepStrictEqual(found.progress, asStored(progress) ?? 0)
  const isLogged = log === undefined || found.logs?.at(-1) === wellFormed(log)
  return [...(isShown ? [] : ['the progress is another']), ...(isLogged ? [] : ['the log is another'])]
}

/** 1e400 is null, -0 is 0. */
function asStored(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value))
}

/** None when it is nothing of the kind. */
function itemsOf(asked: Case): Item[] {
  try {
    const { items } = bodyOf(asked) as { items?: Item[] }
    return Array.isArray(items) ? items.filter((item) => typeof item === 'object' && item !== null) : []
  } catch {
    return []
  }
}
