/**
 * Reads a job from its hash, whatever a producer, a worker or an operator has stored there. A value that does not fit the
 * schema becomes `null`, or a JSON string where the schema allows any value, and its field is named in `malformed`: one
 * malformed job must not fail the responses that contain it.
 */
import type { JobState } from '../../bullmq/job-states.ts'
import { createStoredJson } from '../../json/stored-json.ts'
import type { JobHash } from '../../redis/scripts/job-hash.ts'
import type { JobRecordWithLogs } from '../../redis/scripts/read-jobs.ts'
import { timeWithin } from '../../rfc3339.ts'
import type { JobRef } from '../job-id.ts'
import { fitWithin, leaveOut } from './answer-size.ts'
import {
  blankResource,
  type JobResource,
  type JsonText,
  jsonTextOf,
  type MalformedField,
} from './job-resource.ts'

const { isJson, isTexts, jsonWithin } = createStoredJson()

/** Fields that would make the body longer than about `maxBytes` are left out. `jobIdOf`: see keyspace.ts. */
export function resourceFromRecord(
  ref: JobRef,
  stored: JobRecordWithLogs,
  maxBytes: number,
  jobIdOf: (jobKey: string) => string | undefined,
): JobResource {
  const { hash: fields, delayedUntilMs } = stored
  const job = blankResource(ref, stored.state as JobState, fields.name ?? '', null)
  job.createdAt = readTime(job, 'createdAt', fields.timestamp)
  if (fields.progress !== undefined) job.progress = readJson(job, 'progress', fields.progress, maxBytes)
  if (fields.priority !== undefined) job.priority = readInteger(job, 'priority', fields.priority)
  if (fields.atm !== undefined) job.attemptsMade = readInteger(job, 'attemptsMade', fields.atm)
  if (fields.opts !== undefined) job.attempts = readAttempts(job, fields.opts)
  if (delayedUntilMs !== undefined) job.delayedUntil = readTime(job, 'delayedUntil', delayedUntilMs)
  if (fields.processedOn !== undefined) job.startedAt = readTime(job, 'startedAt', fields.processedOn)
  if (fields.finishedOn !== undefined) job.finishedAt = readTime(job, 'finishedAt', fields.finishedOn)
  if (fields.returnvalue !== undefined) job.result = readJson(job, 'result', fields.returnvalue, maxBytes)
  if (fields.failedReason !== undefined)
    job.error = { message: fields.failedReason, stacktrace: readStacktrace(job, fields.stacktrace) }
  if (fields.parentKey !== undefined) job.parent = readParent(job, fields.parentKey, jobIdOf)
  job.deduplicationId = fields.deid ?? null
  // BullMQ's workers read no data as {}.
  if (fields.data !== undefined)
    job.data = fields.data.length === 0 ? NO_DATA : readJson(job, 'data', fields.data, maxBytes)
  if (stored.logs !== undefined) readLogs(job, stored)
  for (const field of stored.tooLong ?? []) noteTooLong(job, field)
  fitWithin(job, maxBytes)
  return job
}

function addMalformed(job: JobResource, field: MalformedField): null {
  job.malformed ??= []
  if (!job.malformed.includes(field)) job.malformed.push(field)
  return null
}

function readTime(job: JobResource, field: MalformedField, stored: string | number | undefined) {
  return timeWithin(toNumber(stored)) ?? addMalformed(job, field)
}

function readInteger(job: JobResource, field: MalformedField, stored: string): number | null {
  const value = toNumber(stored)
  return Number.isSafeInteger(value) ? value : addMalformed(job, field)
}

/** `Number` takes blank text for 0. */
function toNumber(stored: string | number | undefined): number {
  return typeof stored === 'string' && stored.trim() === '' ? Number.NaN : Number(stored)
}

/** `undefined`: it is left out. */
function readJson(
  job: JobResource,
  field: 'progress' | 'result' | 'data',
  stored: Buffer,
  maxBytes: number,
): JsonText | undefined {
  const json = jsonWithin(stored, maxBytes)
  // Text in place of JSON has become a string, or bytes that are not UTF-8 have been replaced.
  if (json !== stored && (json !== undefined || !isJson(stored))) addMalformed(job, field)
  if (json === undefined) {
    leaveOut(job, field)
    return undefined
  }
  return jsonTextOf(json)
}

/** BullMQ stores 0 where the producer gave none, and runs the job once. */
function readAttempts(job: JobResource, stored: string): number | null {
  const opts = parseOptions(stored)
  if (!opts) return addMalformed(job, 'attempts')
  const attempts = opts.attempts ?? 1
  return Number.isSafeInteger(attempts) ? Math.max(1, attempts as number) : addMalformed(job, 'attempts')
}

function parseOptions(stored: string): { attempts?: unknown } | undefined {
  try {
    const opts: unknown = JSON.parse(stored)
    return typeof opts === 'object' && opts !== null && !Array.isArray(opts) ? opts : undefined
  } catch {
    return undefined
  }
}

const NULL = Buffer.from('null')
const NO_DATA: JsonText = { json: '{}' }
const NO_TRACES: JsonText = { json: '[]' }

/** An array of strings; BullMQ writes `null` for none. */
function readStacktrace(job: JobResource, stored: Buffer | undefined): JsonText {
  if (stored === undefined || stored.equals(NULL)) return NO_TRACES
  if (isTexts(stored)) return jsonTextOf(stored)
  addMalformed(job, 'stacktrace')
  return NO_TRACES
}

/** `bull:emails:42` → `emails:42`. A parent with another prefix has no id here. */
function readParent(
  job: JobResource,
  stored: string,
  jobIdOf: (jobKey: string) => string | undefined,
): string | null {
  const id = jobIdOf(stored)
  if (id === undefined) return stored.includes(':') ? null : addMalformed(job, 'parent')
  return id.includes(':') ? id : addMalformed(job, 'parent')
}

function readLogs(job: JobResource, { logs, areLogsCut }: JobRecordWithLogs): void {
  job.logs = logs
  if (logs === null) addMalformed(job, 'logs')
  if (areLogsCut) leaveOut(job, 'logs')
}

/** A number that is too long is malformed; any other value is too large for the response. */
function noteTooLong(job: JobResource, field: keyof JobHash): void {
  switch (field) {
    case 'timestamp':
      addMalformed(job, 'createdAt')
      break
    case 'processedOn':
      addMalformed(job, 'startedAt')
      break
    case 'finishedOn':
      addMalformed(job, 'finishedAt')
      break
    case 'priority':
      job.priority = addMalformed(job, 'priority')
      break
    case 'atm':
      job.attemptsMade = addMalformed(job, 'attemptsMade')
      break
    case 'opts':
      leaveOut(job, 'attempts')
      break
    case 'failedReason':
      leaveOut(job, 'error')
      break
    case 'returnvalue':
      leaveOut(job, 'result')
      break
    case 'parentKey':
      leaveOut(job, 'parent')
      break
    case 'deid':
      leaveOut(job, 'deduplicationId')
      break
    case 'stacktrace':
      if (job.error) leaveOut(job, 'stacktrace')
      break
    default:
      leaveOut(job, field)
  }
}
