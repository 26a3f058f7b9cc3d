/** Turns a requested job into an item for enqueue.lua: checks it, fills in defaults and encodes the options. */

import type { JobsOptions } from 'bullmq'
import { addScripts, type EncodedOptions, encodeOptions } from '../../bullmq/job-encoder.ts'
import type { JobState } from '../../bullmq/job-states.ts'
import type { Config } from '../../config/schema.ts'
import type { EnqueueItem } from '../../redis/scripts/enqueue.ts'
import { checkSize, checkTexts, type NewJob, noOptions } from './new-job.ts'

export interface PrepareJobDeps {
  config: Pick<Config, 'DEFAULT_KEEP_COMPLETED_AGE' | 'DEFAULT_KEEP_FAILED_AGE'>
  /** Throws while Redis has no memory left for a job with so many bytes of data. */
  admit(bytes: number): void
  newKey(timestampMs: number): string
  now(): number
}

/** Throws a SluiceError for a job that cannot be stored. */
export type PrepareJob = (job: NewJob) => EnqueueItem

export function createPrepareJob({ config, admit, newKey, now }: PrepareJobDeps): PrepareJob {
  // BullMQ's Job constructor stores 0 where no attempts are given.
  const defaults: JobsOptions = { attempts: 0, ...defaultRetention(config) }
  const encodedDefaults = encodeOptions(defaults)

  return function prepareJob(job) {
    checkTexts(job)
    const timestamp = now()
    checkSize(job)
    admit(job.data.length)
    return {
      key: job.opts.jobId ?? job.key ?? newKey(timestamp),
      isKeyChosen: job.opts.jobId !== undefined,
      name: job.name,
      timestamp,
      deduplicationId: job.opts.deduplication?.id,
      idempotency: job.idempotency,
      data: job.data,
      options: job.opts === noOptions ? encodedDefaults : encodeWithDefaults(job.opts, defaults),
    }
  }
}

function encodeWithDefaults(opts: JobsOptions, defaults: JobsOptions): EncodedOptions {
  // A generated key is not among the options, as with a job that BullMQ numbers.
  const merged = { ...defaults, ...opts }
  // BullMQ's Job constructor does the same.
  if (typeof merged.backoff === 'number') merged.backoff = { type: 'fixed', delay: merged.backoff }
  return encodeOptions(merged)
}

/** Without retention a queue grows until Redis is full; BullMQ's own default keeps every job forever. Ages in seconds. */
function defaultRetention(config: PrepareJobDeps['config']): JobsOptions {
  const { DEFAULT_KEEP_COMPLETED_AGE: completedAge, DEFAULT_KEEP_FAILED_AGE: failedAge } = config
  const retention: JobsOptions = {}
  if (completedAge > 0) retention.removeOnComplete = { age: completedAge }
  if (failedAge > 0) retention.removeOnFail = { age: failedAge }
  return retention
}

const stateByScript: Record<(typeof addScripts)[number], JobState> = {
  addStandardJob: 'waiting',
  addDelayedJob: 'delayed',
  addPrioritizedJob: 'prioritized',
}
const stateByKind = addScripts.map((script) => stateByScript[script])

/** The state in which a job with these options is stored. */
export function initialState({ kind }: EncodedOptions): JobState {
  return stateByKind[kind - 1]!
}
