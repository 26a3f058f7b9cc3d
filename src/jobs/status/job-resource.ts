/**
 * The resource of `GET /jobs/:id` and its representation (bytes and ETag). It is built from BullMQ's hash or, for a job
 * that was just stored, from the request; both give the same bytes.
 */
import { hash } from 'node:crypto'
import type { JobState } from '../../bullmq/job-states.ts'
import { jsonText, parseJsonText } from '../../bullmq/json-text.ts'
import type { QueueEvent } from '../../events/queue-events.ts'
import type { JobRecord } from '../../redis/scripts/job-hash.ts'
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

/** A value that is passed through: the response contains its text unchanged. */
export interface JsonText {
  json: string
}

export interface Representation {
  body: string
  /** Strong (RFC 9110 §8.8.3): equal tags of one URL mean equal bytes, at every replica. */
  etag: string
}

export function represent(resource: JobResource): Representation {
  return { body: bodyOf(resource), etag: etagOf(resource) }
}

/** Does not parse and serialise `data` again: for one MiB that would block the event loop for a tenth of a second. */
function bodyOf(resource: JobResource): string {
  if (resource.data === undefined) return JSON.stringify(resource)
  const { data, ...rest } = resource
  return `${JSON.stringify(rest).slice(0, -1)},"data":${data.json}}`
}

/**
 * Digests every value that can change while the id stays the same. Digesting the bytes instead would make every enqueue,
 * whose response carries the ETag, serialise the job.
 */
export function etagOf(r: JobResource): string {
  const changing =
    `${r.state} ${r.createdAt} ${r.attemptsMade} ${r.attempts} ${r.priority} ${r.delayedUntil} ${r.startedAt} ` +
    `${r.finishedAt} ${JSON.stringify(r.progress)} ${JSON.stringify(r.result)} ${r.error === null ? '' : JSON.stringify(r.error)} ` +
    // Values that a client chose come last and in quotes, so that no text can pass for another value.
    `${JSON.stringify(r.name)} ${JSON.stringify(r.deduplicationId)} ${JSON.stringify(r.parent)} ` +
    `${r.data === undefined ? '' : r.data.json}${r.logs === undefined ? '' : JSON.stringify(r.logs)}`
  return `"${hash('sha1', changing, 'base64url')}"`
}

/** {@link etagOf} of a job that was just stored. */
export const etagOfNewJob = createNewJobEtag()

/** Reuses the last tag: jobs that arrive together often differ only in their id, which the tag does not cover. */
function createNewJobEtag(): (r: JobResource) => string {
  let last: JobResource | undefined
  let lastEtag = ''
  return (r) => {
    const isSame =
      last !== undefined &&
      last.createdAt === r.createdAt &&
      last.name === r.name &&
      last.state === r.state &&
      last.attempts === r.attempts &&
      last.priority === r.priority &&
      last.delayedUntil === r.delayedUntil &&
      last.deduplicationId === r.deduplicationId
    if (!isSame) {
      last = r
      lastEtag = etagOf(r)
    }
    return lastEtag
  }
}

export function resourceFromRecord(ref: JobRef, stored: JobRecord): JobResource {
  const { hash: fields, delayedUntilMs } = stored
  const opts = (parseJsonText(fields.opts) ?? {}) as { attempts?: number }
  // Assigned field by field: objects built by spreading each get a hidden class that is larger than the object.
  const job = blank(ref, stored.state as JobState, fields.name ?? '', Number(fields.timestamp))
  job.progress = parseJsonText(fields.progress) ?? 0
  job.priority = Number(fields.priority ?? 0)
  job.attemptsMade = Number(fields.atm ?? 0)
  job.attempts = attemptsOf(opts)
  job.delayedUntil = timeOf(delayedUntilMs)
  job.startedAt = timeOf(fields.processedOn)
  job.finishedAt = timeOf(fields.finishedOn)
  job.result = parseJsonText(fields.returnvalue) ?? null
  if (fields.failedReason !== undefined) {
    job.error = {
      message: fields.failedReason,
      stacktrace: (parseJsonText(fields.stacktrace) ?? []) as string[],
    }
  }
  if (fields.parentKey !== undefined) job.parent = parentId(fields.parentKey)
  job.deduplicationId = fields.deid ?? null
  if (fields.data !== undefined) job.data = { json: jsonText(fields.data) }
  return job
}

/** Equals what {@link resourceFromRecord} returns until something changes the job. */
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
 * Reconstructs a job that finished and was not kept (removeOnComplete) from its last known body and its final event.
 * `finishedAt` is the time of the event, by Redis' clock.
 */
export function finishedBy(lastBody: string, { id, event, fields }: QueueEvent): JobResource {
  const job = JSON.parse(lastBody) as JobResource
  const { returnvalue, failedReason = '' } = fields
  if (event === 'completed') {
    job.state = 'completed'
    job.result = parseJsonText(returnvalue) ?? null
  } else {
    job.state = 'failed'
    job.error = { message: failedReason, stacktrace: job.error?.stacktrace ?? [] }
  }
  job.finishedAt = rfc3339(millisecondsOf(id))
  job.delayedUntil = null
  job.attemptsMade++
  if (job.data !== undefined) job.data = { json: JSON.stringify(job.data) }
  return job
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

/** BullMQ stores 0 where the client gave none, and runs the job once. */
function attemptsOf(opts: { attempts?: number }): number {
  return Math.max(1, opts.attempts ?? 1)
}

/** `bull:emails:42` → `emails:42`; the prefix holds no colon. */
function parentId(parentKey: string): string {
  return parentKey.slice(parentKey.indexOf(':') + 1)
}

/** The time as RFC 3339 with milliseconds, UTC. */
export const rfc3339 = createRfc3339()

/** Reuses the last text: jobs that arrive together share a millisecond. */
function createRfc3339(): (ms: number) => string {
  let lastMs = Number.NaN
  let lastText = ''
  return (ms) => {
    if (ms !== lastMs) {
      lastText = new Date(ms).toISOString()
      lastMs = ms
    }
    return lastText
  }
}

/** The latest time that a Date can hold (ECMA-262 §21.4.1.1); BullMQ accepts any delay. */
const MAX_TIME_MS = 8.64e15

function timeOf(ms: string | number | undefined): string | null {
  return ms === undefined ? null : rfc3339(Math.min(Number(ms), MAX_TIME_MS))
}
