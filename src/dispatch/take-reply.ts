/** Parses the replies of BullMQ's worker scripts: the jobs of a take, and the errors of settling and extending. */
import { type JobJson, raw2NextJobData } from 'bullmq'
import { type JobLease, readOptions } from '../bullmq/job-lease.ts'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import { jsonText } from '../bullmq/json-text.ts'
import { SluiceError } from '../errors.ts'
import { fromRedisError } from '../redis/redis-errors.ts'
import { type CommandReply, LIMIT_REVISED } from '../redis/scripts/run-bullmq-commands.ts'
import type { LeasedJob, TakeResult } from './leased-job.ts'

export interface TakeReply extends TakeResult {
  /** Jobs of a scheduler. The process that takes one creates the scheduler's next job. */
  scheduled: { json: JobJson; lease: JobLease }[]
  /** Jobs that must not be worked, and the outcome to settle them with. */
  rejected: { lease: JobLease; outcome: JobOutcome }[]
}

export const EMPTY_TAKE: TakeResult = {
  jobs: [],
  limitedMs: 0,
  nextAtMs: 0,
  isBounded: false,
  isLimitReached: false,
  isLimitRevised: false,
}

/** Reads the replies of the runs of moveToActive. Throws a SluiceError if the first run failed. */
export function parseTakeReply(queue: string, token: string, runs: CommandReply[]): TakeReply {
  const parsed: TakeReply = {
    jobs: [],
    limitedMs: 0,
    nextAtMs: 0,
    isBounded: false,
    isLimitReached: runs.length === 0,
    isLimitRevised: false,
    scheduled: [],
    rejected: [],
  }
  for (const run of runs) {
    if ('error' in run) {
      if (run.error === LIMIT_REVISED) parsed.isLimitRevised = true
      // Jobs that earlier runs took are leased all the same.
      else if (parsed.jobs.length === 0) throw fromRedisError(new Error(run.error), true)
      continue
    }
    const [json, key, limitedMs, nextAtMs] = raw2NextJobData(run.reply as unknown[]) as [
      JobJson | null,
      string,
      number,
      number,
    ]
    if (!json) {
      parsed.limitedMs = Math.max(0, Number(limitedMs) || 0)
      parsed.nextAtMs = Math.max(0, Number(nextAtMs) || 0)
      parsed.isBounded = run.isBounded
      continue
    }
    const job = toLeasedJob(queue, String(key), token, run.reply as [string[]], json)
    parsed.jobs.push(job)
    const { deferredFailure } = json
    if (json.repeatJobKey) parsed.scheduled.push({ json, lease: job })
    if (deferredFailure) {
      const outcome: JobOutcome = {
        outcome: 'fail',
        error: { message: deferredFailure },
        unrecoverable: true,
      }
      parsed.rejected.push({ lease: job, outcome })
    }
  }
  return parsed
}

function toLeasedJob(
  queue: string,
  key: string,
  token: string,
  [fields]: [string[]],
  json: JobJson,
): LeasedJob {
  const optsIndex = fields.indexOf('opts')
  const { settling, attempts, traceparent } = readOptions(optsIndex < 0 ? '{}' : fields[optsIndex + 1]!)
  return {
    queue,
    key,
    token,
    opts: settling,
    attemptsMade: json.attemptsMade,
    attemptsStarted: json.attemptsStarted ?? 1,
    name: json.name,
    data: jsonText(json.data),
    traceparent,
    attempts,
    createdAtMs: json.timestamp,
    takenAtMs: json.processedOn ?? Date.now(),
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
