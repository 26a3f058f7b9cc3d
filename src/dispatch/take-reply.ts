/** What BullMQ's scripts answer to a worker, in our words. */
import { type JobJson, raw2NextJobData } from 'bullmq'
import { type JobLease, readOptions } from '../bullmq/job-lease.ts'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import { jsonText } from '../bullmq/json-text.ts'
import { SluiceError } from '../errors.ts'
import { fromRedisError } from '../redis/redis-errors.ts'
import type { CommandReply } from '../redis/scripts/run-bullmq-commands.ts'
import type { LeasedJob, TakeResult } from './leased-job.ts'

export interface TakeReply extends TakeResult {
  /** Jobs of a scheduler: whoever takes one makes the next. */
  scheduled: { json: JobJson; lease: JobLease }[]
  /** Jobs that nobody may work any more, and how they end. */
  rejected: { lease: JobLease; outcome: JobOutcome }[]
}

export const EMPTY_TAKE: TakeResult = {
  ...{ jobs: [], limitedMs: 0, nextAtMs: 0 },
  ...{ isBounded: false, isLimitReached: false, isLimitRevised: false },
}
/** What the runs of moveToActive brought. Throws a SluiceError when the first of them failed. */
export function parseTakeReply(queue: string, token: string, runs: CommandReply[]): TakeReply {
  const read: TakeReply = {
    ...EMPTY_TAKE,
    jobs: [],
    scheduled: [],
    rejected: [],
    isLimitReached: runs.length === 0,
  }
  for (const run of runs) {
    if ('error' in run) {
      if (run.error === 'SHARE_CHANGED') read.isLimitRevised = true
      // Jobs that came before it are held all the same.
      else if (read.jobs.length === 0) throw fromRedisError(new Error(run.error), true)
      continue
    }
    const [json, key, limitedMs, nextAtMs] = raw2NextJobData(run.reply as unknown[]) as [
      JobJson | null,
      string,
      number,
      number,
    ]
    if (!json) {
      read.limitedMs = Math.max(0, Number(limitedMs) || 0)
      read.nextAtMs = Math.max(0, Number(nextAtMs) || 0)
      read.isBounded = run.isBounded
      continue
    }
    const job = toTaken(queue, String(key), token, run.reply as [string[]], json)
    read.jobs.push(job)
    const { deferredFailure } = json
    if (json.repeatJobKey) read.scheduled.push({ json, lease: job })
    if (deferredFailure) {
      const outcome: JobOutcome = {
        outcome: 'fail',
        error: { message: deferredFailure },
        unrecoverable: true,
      }
      read.rejected.push({ lease: job, outcome })
    }
  }
  return read
}

function toTaken(queue: string, key: string, token: string, [fields]: [string[]], json: JobJson): LeasedJob {
  const optsAt = fields.indexOf('opts')
  const { settling, attempts, traceparent } = readOptions(optsAt < 0 ? '{}' : fields[optsAt + 1]!)
  const { name, data, attemptsMade, attemptsStarted = 1, timestamp, processedOn = Date.now() } = json
  // A literal that begins with a spread costs V8 microseconds, for each of a thousand jobs a second.
  return {
    queue,
    ...{ key, token, opts: settling, attemptsMade, attemptsStarted },
    ...{ name, data: jsonText(data), traceparent, attempts, createdAtMs: timestamp, takenAtMs: processedOn },
  }
}

/** Why a job was not settled or kept: BullMQ's codes (finished-errors.js). */
export function errorOfReply(run: CommandReply): SluiceError | undefined {
  if ('error' in run) return fromRedisError(new Error(run.error), true)
  const code = Number(run.reply)
  if (!(code < 0)) return undefined
  if (code === -1) return new SluiceError('JOB_NOT_FOUND')
  if (code === -4 || code === -9)
    return new SluiceError('WRONG_STATE', {
      detail: 'The job has children that are not done, or have failed.',
    })
  return new SluiceError('LEASE_LOST')
}
