/**
 * What clients see of a job: the resource of `GET /jobs/:id`, made from BullMQ's hash or, for a job that was just
 * stored, from what was stored; and its representation, the bytes and their ETag.
 */
import { hash } from 'node:crypto'
import type { JobState } from '../../bullmq/job-states.ts'
import { jsonText } from '../../bullmq/json-text.ts'
import type { QueueEvent } from '../../events/queue-events.ts'
import { millisecondsOf } from '../../redis/streams/stream-position.ts'
import type { JobRef } from '../job-id.ts'

/** Times are RFC 3339 with milliseconds, UTC. */
export interface JobResource {
  id: string
  queue: string
  name: string
  state: JobState
  progress: unknown
  priority: number
  attemptsMade: number
  attempts: number
  createdAt: string
  delayedUntil: string | null
  startedAt: string | null
  finishedAt: string | null
  result: unknown
  error: { message: string; stacktrace: string[] } | null
  parent: string | null
  deduplicationId: string | null
  data?: JsonText
  logs?: string[]
}

/** A value that is only passed on: its text goes into the answer as it is. */
export interface JsonText {
  json: string
}

export interface Representation {
  body: string
  /** Strong (RFC 9110 §8.8.3): equal tags of one URL mean equal bytes, at every replica. */
  etag: string
}

/** Fields of BullMQ's job hash, by BullMQ's names (job.js, `rawToJobJson`). */
export interface JobHash {
  timestamp: string
  name?: string
  opts?: string
  progress?: string
  priority?: string
  atm?: string
  processedOn?: string
  finishedOn?: string
  returnvalue?: string
  failedReason?: string
  stacktrace?: string
  parentKey?: string
  deid?: string
  data?: string
}

export function represent(resource: JobResource): Representation {
  return { body: bodyOf(resource), etag: etagOf(resource) }
}

/** Data are not parsed and written again: a mebibyte of them holds the event loop for a tenth of a second that way. */
function bodyOf(resource: JobResource): string {
  if (resource.data === undefined) return JSON.stringify(resource)
  const { data, ...rest } = resource
  return `${JSON.stringify(rest).slice(0, -1)},"data":${data.json}}`
}

/**
 * A digest of every value that can change while the id stays the same. Not of the bytes: a job that was just stored is
 * told its tag, and its bytes need not be made for that.
 */
export function etagOf(r: JobResource): string {
  const changing =
    `${r.state} ${r.createdAt} ${r.attemptsMade} ${r.attempts} ${r.priority} ${r.delayedUntil} ${r.startedAt} ` +
    `${r.finishedAt} ${JSON.stringify(r.progress)} ${JSON.stringify(r.result)} ${r.error === null ? '' : JSON.stringify(r.error)} ` +
    // What a caller chose comes last and in quotes, so that no text can pass for another value.
    `${JSON.stringify(r.name)} ${JSON.stringify(r.deduplicationId)} ${JSON.stringify(r.parent)} ` +
    `${r.data === undefined ? '' : r.data.json}${r.logs === undefined ? '' : JSON.stringify(r.logs)}`
  return `"${hash('sha1', changing, 'base64url')}"`
}

let lastNew: JobResource | undefined
let lastNewEtag = ''

/** {@link etagOf} of a job that was just stored. Those that arrive together are often alike but for the id, which no tag holds. */
export function etagOfNewJob(r: JobResource): string {
  const isLike =
    lastNew !== undefined &&
    lastNew.createdAt === r.createdAt &&
    lastNew.name === r.name &&
    lastNew.state === r.state &&
    lastNew.attempts === r.attempts &&
    lastNew.priority === r.priority &&
    lastNew.delayedUntil === r.delayedUntil &&
    lastNew.deduplicationId === r.deduplicationId
  if (!isLike) {
    lastNew = r
    lastNewEtag = etagOf(r)
  }
  return lastNewEtag
}

/** `delayedUntilMs`: from the delayed set, which alone knows when a retry is due. */
export function resourceFromHash(
  ref: JobRef,
  state: JobState,
  fields: JobHash,
  delayedUntilMs: number | undefined,
): JobResource {
  const opts = (parse(fields.opts) ?? {}) as { attempts?: number }
  // Filled in, not spread together: such an object would have a shape of its own, which is larger than the object.
  const job = blank(ref, state, fields.name ?? '', Number(fields.timestamp))
  job.progress = parse(fields.progress) ?? 0
  job.priority = Number(fields.priority ?? 0)
  job.attemptsMade = Number(fields.atm ?? 0)
  job.attempts = attemptsOf(opts)
  job.delayedUntil = timeOf(delayedUntilMs)
  job.startedAt = timeOf(fields.processedOn)
  job.finishedAt = timeOf(fields.finishedOn)
  job.result = parse(fields.returnvalue) ?? null
  if (fields.failedReason !== undefined) {
    job.error = { message: fields.failedReason, stacktrace: (parse(fields.stacktrace) ?? []) as string[] }
  }
  if (fields.parentKey !== undefined) job.parent = parentId(fields.parentKey)
  job.deduplicationId = fields.deid ?? null
  if (fields.data !== undefined) job.data = { json: jsonText(fields.data) }
  return job
}

/** The same resource that {@link resourceFromHash} gives as long as nobody has touched the job. */
export function resourceOfNewJob(
  ref: JobRef,
  job: { name: string; state: JobState; timestamp: number },
  opts: { delay?: number; priority?: number; attempts?: number; deduplication?: { id: string } },
): JobResource {
  const resource = blank(ref, job.state, job.name, job.timestamp)
  resource.priority = opts.priority ?? 0
  resource.attempts = attemptsOf(opts)
  if (job.state === 'delayed') resource.delayedUntil = timeOf(job.timestamp + (opts.delay ?? 0))
  resource.deduplicationId = opts.deduplication?.id ?? null
  return resource
}

/**
 * A job that ended and was not kept, as far as it is known: what was last seen of it, and its last event. The time is
 * that of the event, on Redis' clock.
 */
export function finishedBy(lastBody: string, { id, event, fields }: QueueEvent): JobResource {
  const last = JSON.parse(lastBody) as JobResource
  const { returnvalue, failedReason = '' } = fields
  const ending =
    event === 'completed'
      ? { state: 'completed' as const, result: parse(returnvalue) ?? null }
      : {
          state: 'failed' as const,
          error: { message: failedReason, stacktrace: last.error?.stacktrace ?? [] },
        }
  const finishedAt = rfc3339(millisecondsOf(id))
  const data = last.data === undefined ? {} : { data: { json: JSON.stringify(last.data) } }
  return { ...last, ...data, ...ending, finishedAt, delayedUntil: null, attemptsMade: last.attemptsMade + 1 }
}

function blank(ref: JobRef, state: JobState, name: string, timestamp: number): JobResource {
  return {
    id: `${ref.queue}:${ref.key}`,
    queue: ref.queue,
    name,
    state,
    progress: 0,
    priority: 0,
    attemptsMade: 0,
    attempts: 1,
    createdAt: rfc3339(timestamp),
    delayedUntil: null,
    startedAt: null,
    finishedAt: null,
    result: null,
    error: null,
    parent: null,
    deduplicationId: null,
  }
}

/** BullMQ stores 0 for "not said", and runs it once. */
function attemptsOf(opts: { attempts?: number }): number {
  return Math.max(1, opts.attempts ?? 1)
}

/** BullMQ writes JSON into these fields; a text that something else put there is shown as it is. */
function parse(text: string | undefined): unknown {
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** `bull:emails:42` → `emails:42`; the prefix holds no colon. */
function parentId(parentKey: string): string {
  return parentKey.slice(parentKey.indexOf(':') + 1)
}

let lastMs = Number.NaN
let lastText = ''

/** Jobs that arrive together share a millisecond, so the last one made is often the next one asked for. */
export function rfc3339(ms: number): string {
  if (ms !== lastMs) {
    lastText = new Date(ms).toISOString()
    lastMs = ms
  }
  return lastText
}

/** The last that a date can tell (ECMA-262 §21.4.1.1): BullMQ takes any delay. */
const MAX_TIME_MS = 8.64e15

function timeOf(ms: string | number | undefined): string | null {
  return ms === undefined ? null : rfc3339(Math.min(Number(ms), MAX_TIME_MS))
}
