/**
 * The resource of `GET /jobs/:id` and its representation (bytes and ETag). It is built from BullMQ's hash
 * (stored-job.ts) or, for a job that was just stored, from the request; both give the same bytes. JSON values of the job
 * are passed through as text: parsing and serialising one MiB would block the event loop for a tenth of a second.
 */
import type { JobState } from '../../bullmq/job-states.ts'
import {
  createJsonWriter,
  type JsonPart,
  type JsonWriter,
  writePart,
  writtenDigest,
  writtenJson,
} from '../../json/json-writer.ts'
import { rfc3339 } from '../../rfc3339.ts'
import type { JobRef } from '../job-id.ts'

/**
 * Times are RFC 3339 with milliseconds, UTC. `undefined`: left out, and named in `omitted` unless it is `data` or `logs`
 * that were not requested. `null` with its name in `malformed`: the stored value does not fit the schema.
 */
export interface JobResource {
  id: string
  queue: string
  name: string | undefined
  state: JobState
  progress: JsonText | undefined
  priority: number | null
  attemptsMade: number | null
  attempts: number | null | undefined
  createdAt: string | null
  delayedUntil: string | null
  startedAt: string | null
  finishedAt: string | null
  result: JsonText | undefined
  error: JobError | null | undefined
  parent: string | null | undefined
  deduplicationId: string | null | undefined
  data: JsonText | undefined
  logs: string[] | null | undefined
  omitted: OmittedField[] | undefined
  malformed: MalformedField[] | undefined
}

/** A value that is passed through: the response contains its text unchanged. */
export interface JsonText {
  /** Bytes if it is long. */
  json: JsonPart
}

export interface JobError {
  message: string
  /** An array of strings; `undefined`: left out. */
  stacktrace: JsonText | undefined
}

/** Fields that may be too large. */
export const omittedFields = [
  'name',
  'progress',
  'attempts',
  'result',
  'error',
  'stacktrace',
  'parent',
  'deduplicationId',
  'data',
  'logs',
] as const
export type OmittedField = (typeof omittedFields)[number]

/** Fields whose stored value may be something that BullMQ does not write. */
export const malformedFields = [
  'progress',
  'priority',
  'attemptsMade',
  'attempts',
  'createdAt',
  'delayedUntil',
  'startedAt',
  'finishedAt',
  'result',
  'stacktrace',
  'parent',
  'data',
  'logs',
] as const
export type MalformedField = (typeof malformedFields)[number]

export interface Representation {
  /** JSON text; bytes if a value is long. */
  body: JsonPart
  /** Strong (RFC 9110 §8.8.3): equal tags of one URL mean equal bytes, at every replica. */
  etag: string
}

export function represent(resource: JobResource): Representation {
  return { body: bodyOf(resource), etag: etagOf(resource) }
}

export function bodyOf(r: JobResource): JsonPart {
  const body = createJsonWriter(
    `{"id":${JSON.stringify(r.id)},"queue":${JSON.stringify(r.queue)},"name":${JSON.stringify(r.name ?? null)},"state":"${r.state}"`,
  )
  writeMember(body, 'progress', r.progress)
  body.text +=
    `,"priority":${r.priority},"attemptsMade":${r.attemptsMade},"attempts":${r.attempts ?? null}` +
    `,"createdAt":${quoted(r.createdAt)},"delayedUntil":${quoted(r.delayedUntil)}` +
    `,"startedAt":${quoted(r.startedAt)},"finishedAt":${quoted(r.finishedAt)}`
  writeMember(body, 'result', r.result)
  if (r.error !== undefined) {
    body.text += ',"error":'
    writeError(body, r.error)
  }
  body.text +=
    `${texts('parent', r.parent)}${texts('deduplicationId', r.deduplicationId)}` +
    `${texts('omitted', r.omitted)}${texts('malformed', r.malformed)}${texts('logs', r.logs)}`
  writeMember(body, 'data', r.data)
  body.text += '}'
  return writtenJson(body)
}

function writeMember(body: JsonWriter, name: string, value: JsonText | undefined): void {
  if (value === undefined) return
  body.text += `,"${name}":`
  writePart(body, value.json)
}

function texts(name: string, value: string | readonly string[] | null | undefined): string {
  return value === undefined ? '' : `,"${name}":${JSON.stringify(value)}`
}

/** Of a time, which needs no escapes. */
function quoted(time: string | null): string {
  return time === null ? 'null' : `"${time}"`
}

function writeError(body: JsonWriter, error: JobError | null): void {
  if (error === null) {
    body.text += 'null'
    return
  }
  body.text += `{"message":${JSON.stringify(error.message)}`
  writeMember(body, 'stacktrace', error.stacktrace)
  body.text += '}'
}

/**
 * Digests every value that can change while the id stays the same. Digesting the bytes instead would make every enqueue,
 * whose response carries the ETag, serialise the job.
 */
export function etagOf(r: JobResource): string {
  const changing = createJsonWriter(
    `${r.state} ${r.createdAt} ${r.attemptsMade} ${r.attempts} ${r.priority} ${r.delayedUntil} ${r.startedAt} ` +
      `${r.finishedAt} ${r.omitted || r.malformed ? `omitted:${r.omitted} malformed:${r.malformed} ` : ''}`,
  )
  writePart(changing, r.progress?.json ?? 'undefined')
  changing.text += ' '
  writePart(changing, r.result?.json ?? 'undefined')
  changing.text += ' '
  if (r.error) writeError(changing, r.error)
  // Values that a client chose come last and in quotes, so that no text can pass for another value.
  changing.text += ` ${JSON.stringify(r.name)} ${JSON.stringify(r.deduplicationId)} ${JSON.stringify(r.parent)} `
  if (r.data !== undefined) writePart(changing, r.data.json)
  if (r.logs !== undefined) changing.text += JSON.stringify(r.logs)
  return `"${writtenDigest(changing)}"`
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

/** Equals what `resourceFromRecord` returns until something changes the job. */
export function resourceOfNewJob(
  ref: JobRef,
  job: { name: string; state: JobState; timestamp: number },
  opts: { delay?: number; priority?: number; attempts?: number; deduplication?: { id: string } },
): JobResource {
  const resource = blankResource(ref, job.state, job.name, rfc3339(job.timestamp))
  resource.priority = opts.priority ?? 0
  // BullMQ stores 0 where the client gave none, and runs the job once.
  resource.attempts = Math.max(1, opts.attempts ?? 1)
  if (job.state === 'delayed') resource.delayedUntil = rfc3339(job.timestamp + (opts.delay ?? 0))
  resource.deduplicationId = opts.deduplication?.id ?? null
  return resource
}

/** Shorter values are strings: joining them costs no more than copying bytes, and less garbage collection. */
const BYTES_MIN = 16_384

/** `json`: JSON in UTF-8. */
export function jsonTextOf(json: Buffer): JsonText {
  return { json: json.length < BYTES_MIN ? json.toString() : json }
}

const ZERO: JsonText = { json: '0' }
const NULL: JsonText = { json: 'null' }

/** Assigned field by field from here on: objects built by spreading each get a hidden class that is larger than the object. */
export function blankResource(
  ref: JobRef,
  state: JobState,
  name: string,
  createdAt: string | null,
): JobResource {
  return {
    id: `${ref.queue}:${ref.key}`,
    queue: ref.queue,
    name,
    state,
    progress: ZERO,
    priority: 0,
    attemptsMade: 0,
    attempts: 1,
    createdAt,
    delayedUntil: null,
    startedAt: null,
    finishedAt: null,
    result: NULL,
    error: null,
    parent: null,
    deduplicationId: null,
    data: undefined,
    logs: undefined,
    omitted: undefined,
    malformed: undefined,
  }
}
