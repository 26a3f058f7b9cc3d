/**
 * Keeps the body of a job within a number of bytes by leaving out its largest fields, and makes the brief form of a job,
 * without its long fields. A field that is left out is named in `omitted`; of `logs`, only the oldest lines are.
 */
import { jsonStringBytes } from '../../json/json-string.ts'
import { bytesOfPart, type JsonPart } from '../../json/json-writer.ts'
import { BRIEF_BYTES } from '../../redis/scripts/job-hash.ts'
import { type JobResource, type OmittedField, omittedFields } from './job-resource.ts'

/** About what a body takes beside the values measured here. */
const OVERHEAD_BYTES = 512
/** The most bytes that a UTF-16 unit takes in a body: `\u0000`. */
const BYTES_PER_UNIT = 6

/** Leaves out the largest fields, one after the other, until the body fits. */
export function fitWithin(job: JobResource, maxBytes: number): void {
  if (BYTES_PER_UNIT * unitsOf(job) + OVERHEAD_BYTES <= maxBytes) return
  for (;;) {
    const sizes = sizesOf(job)
    const total = bytesOfValues(job)
    const largest = sizes.reduce((one, other) => (other.bytes > one.bytes ? other : one))
    if (total <= maxBytes || largest.bytes === 0) return
    if (largest.field === 'logs') keepNewestLines(job, maxBytes - (total - largest.bytes))
    leaveOut(job, largest.field)
  }
}

/** About the bytes of the body. */
export function bytesOfValues(job: JobResource): number {
  return sizesOf(job).reduce((sum, { bytes }) => sum + bytes, 0) + OVERHEAD_BYTES
}

function sizesOf(job: JobResource): { field: OmittedField; bytes: number }[] {
  return omittedFields.map((field) => ({ field, bytes: bytesOf(job, field) }))
}

/** The job without its long fields; the job itself if it has none. */
export function toBrief(job: JobResource): JobResource {
  // Most jobs are short.
  if (unitsOf(job) <= BRIEF_BYTES / BYTES_PER_UNIT) return job
  const long = omittedFields.filter((field) => field !== 'attempts' && bytesOf(job, field) > BRIEF_BYTES)
  if (long.length === 0) return job
  const brief = { ...job, omitted: job.omitted && [...job.omitted] }
  for (const field of long) {
    if (field === 'logs') brief.logs = []
    leaveOut(brief, field)
  }
  return brief
}

/** Names the field in `omitted`, and removes its value; which of the logs stay is decided elsewhere. */
export function leaveOut(job: JobResource, field: OmittedField): void {
  if (field === 'stacktrace') job.error = job.error && { message: job.error.message, stacktrace: undefined }
  else if (field !== 'logs') job[field] = undefined
  job.omitted ??= []
  if (!job.omitted.includes(field)) job.omitted.push(field)
}

/** UTF-16 units of all values, or bytes. */
function unitsOf(job: JobResource): number {
  let units =
    (job.name?.length ?? 0) +
    (job.progress?.json.length ?? 0) +
    (job.result?.json.length ?? 0) +
    (job.parent?.length ?? 0) +
    (job.deduplicationId?.length ?? 0) +
    (job.data?.json.length ?? 0)
  if (job.error) units += job.error.message.length + (job.error.stacktrace?.json.length ?? 0)
  for (const line of job.logs ?? []) units += line.length + 1
  return units
}

/** Bytes of the value in the body. */
function bytesOf(job: JobResource, field: OmittedField): number {
  switch (field) {
    case 'attempts':
      return 0
    case 'progress':
    case 'result':
    case 'data':
      return jsonBytes(job[field]?.json)
    case 'error':
      return textBytes(job.error?.message)
    case 'stacktrace':
      return jsonBytes(job.error?.stacktrace?.json)
    case 'logs':
      return (job.logs ?? []).reduce((sum, line) => sum + jsonStringBytes(line) + 1, 0)
    default:
      return textBytes(job[field])
  }
}

function jsonBytes(json: JsonPart | undefined): number {
  return json === undefined ? 0 : bytesOfPart(json)
}

function textBytes(text: string | null | undefined): number {
  return typeof text === 'string' ? jsonStringBytes(text) : 0
}

function keepNewestLines(job: JobResource, maxBytes: number): void {
  const lines = job.logs ?? []
  let first = lines.length
  for (let bytes = 0; first > 0; first--) {
    bytes += jsonStringBytes(lines[first - 1]!) + 1
    if (bytes > maxBytes) break
  }
  job.logs = lines.slice(first)
}
