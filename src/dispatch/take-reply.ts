/** Parses the replies of BullMQ's worker scripts: the jobs of a take, and the errors of settling and extending. */
import type { JobLease } from '../bullmq/job-lease.ts'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import { readTakenJob, type TakenJob } from '../bullmq/taken-job.ts'
import { SluiceError } from '../errors.ts'
import type { StoredJson } from '../json/stored-json.ts'
import { fromRedisError, ownKeyDamaged } from '../redis/redis-errors.ts'
import {
  type CommandReply,
  type CommandResult,
  LIMIT_DAMAGED,
  LIMIT_REVISED,
} from '../redis/scripts/run-bullmq-commands.ts'
import type { LeasedJob, TakeResult } from './leased-job.ts'

export interface TakeReply extends TakeResult {
  /** Jobs of a scheduler. The process that takes one creates the scheduler's next job. `fields`: the job's hash. */
  scheduled: { schedulerId: string; fields: string[]; lease: JobLease }[]
  /** Jobs that must not be worked, and the outcome to settle them with. */
  rejected: { lease: JobLease; outcome: JobOutcome }[]
  /** Jobs that cannot be worked. Those that could be leased are in `rejected` as well. */
  malformed: MalformedJob[]
}

export interface MalformedJob {
  key: string
  reason: string
}

export const EMPTY_TAKE: TakeResult = {
  jobs: [],
  limitedMs: 0,
  nextAtMs: 0,
  isBounded: false,
  isLimitReached: false,
  isLimitRevised: false,
  mayHaveMore: false,
}

/** Reads the replies of the runs of moveToActive. Throws a SluiceError if the first run failed. */
export function parseTakeReply(
  queue: string,
  token: string,
  runs: CommandReply[],
  json: StoredJson,
): TakeReply {
  const parsed: TakeReply = {
    jobs: [],
    limitedMs: 0,
    nextAtMs: 0,
    isBounded: false,
    isLimitReached: runs.length === 0,
    isLimitRevised: false,
    mayHaveMore: false,
    scheduled: [],
    rejected: [],
    malformed: [],
  }
  for (const run of runs) {
    if ('removedId' in run) {
      parsed.malformed.push({ key: run.removedId, reason: run.error })
    } else if ('error' in run) {
      if (run.error === LIMIT_REVISED) parsed.isLimitRevised = true
      // Jobs that earlier runs took are leased all the same.
      else if (parsed.jobs.length === 0) throw takeErrorOf(run.error)
    } else addRun(parsed, queue, token, run, json)
  }
  return parsed
}

function takeErrorOf(text: string): SluiceError {
  if (!text.startsWith(LIMIT_DAMAGED)) return fromRedisError(new Error(text), true)
  const use = 'which counts the deliveries in flight'
  return ownKeyDamaged(text.slice(LIMIT_DAMAGED.length), use, 'delete it; jobs are then taken again.')
}

/** What moveToActive returns: the job's hash, or 0, and the job's id; then when to take again. */
type RawTake = [fields: Buffer[] | 0, key: Buffer, limitedMs: number, nextAtMs: number]

function addRun(
  parsed: TakeReply,
  queue: string,
  token: string,
  { reply, isBounded }: CommandResult,
  json: StoredJson,
): void {
  const [fields, key, limitedMs, nextAtMs] = reply as RawTake
  if (!fields) {
    parsed.limitedMs = Math.max(0, Number(limitedMs) || 0)
    parsed.nextAtMs = Math.max(0, Number(nextAtMs) || 0)
    parsed.isBounded = isBounded
    return
  }
  const taken = readTakenJob(fields, json)
  const { schedulerId, malformed, deferredFailure } = taken
  const job = toLeasedJob(queue, String(key), token, taken)
  parsed.jobs.push(job)
  if (schedulerId !== undefined)
    parsed.scheduled.push({ schedulerId, fields: fields.map(String), lease: job })
  if (malformed !== undefined) parsed.malformed.push({ key: job.key, reason: malformed })
  const message = malformed ?? deferredFailure
  if (message !== undefined) parsed.rejected.push(failureOf(job, message))
}

/** Rejects the jobs that the worker could not settle. */
export function rejectUnsettleable(
  reply: TakeReply,
  whyUnsettleable: (job: JobLease) => string | undefined,
): void {
  for (const job of reply.jobs) {
    const reason = whyUnsettleable(job)
    if (reason === undefined || reply.rejected.some(({ lease }) => lease === job)) continue
    reply.malformed.push({ key: job.key, reason })
    reply.rejected.push(failureOf(job, reason))
  }
}

function failureOf(lease: JobLease, message: string): TakeReply['rejected'][number] {
  return { lease, outcome: { outcome: 'fail', error: { message }, unrecoverable: true } }
}

function toLeasedJob(queue: string, key: string, token: string, taken: TakenJob): LeasedJob {
  const { options, name, data, attemptsMade, attemptsStarted, createdAtMs, takenAtMs } = taken
  return {
    queue,
    key,
    token,
    opts: options.settling,
    attemptsMade,
    attemptsStarted,
    name,
    data,
    traceparent: options.traceparent,
    attempts: options.attempts,
    createdAtMs,
    takenAtMs,
  }
}

/** Why a job was not settled, from BullMQ's codes (finished-errors.js); `undefined` if it was. */
export function settleErrorOf(run: CommandReply): SluiceError | undefined {
  if ('error' in run) return fromRedisError(new Error(run.error), true)
  const code = Number(run.reply)
  if (!(code < 0)) return undefined
  if (code === -1) return new SluiceError('JOB_NOT_FOUND')
  if (code === -4 || code === -9)
    return new SluiceError('WRONG_STATE', {
      detail:
        'The job has children that are not finished, or that have failed. Wait for them, or retry them.',
    })
  return new SluiceError('LEASE_LOST')
}

/** Why a lease was not extended: the first run extends the lock, the others write progress and log. */
export function extendErrorOf(runs: (CommandReply | undefined)[]): SluiceError | undefined {
  const [locked] = runs
  if (locked && 'reply' in locked && locked.reply === 0) return new SluiceError('LEASE_LOST')
  for (const run of runs) {
    const error = run && settleErrorOf(run)
    if (error) return error
  }
  return undefined
}
