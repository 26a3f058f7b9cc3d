/**
 * Which fields of BullMQ's job hash are read, and how what a script of ours says of a job becomes its resource.
 */
import type { JobState } from '../../bullmq/job-states.ts'
import type { JobRef } from '../job-id.ts'
import { type JobHash, type JobResource, resourceFromHash } from './job-resource.ts'

/** In the order in which the scripts are asked for them. */
export const FIELDS: readonly (keyof JobHash)[] = [
  // The scripts expect these two first.
  'finishedOn',
  'timestamp',
  'name',
  'opts',
  'progress',
  'priority',
  'atm',
  'processedOn',
  'returnvalue',
  'failedReason',
  'stacktrace',
  'parentKey',
  'deid',
]
export const FIELDS_AND_DATA: readonly (keyof JobHash)[] = [...FIELDS, 'data']

/** What a script says of one job: its state, the values of {@link FIELDS} (and data), and its score in the delayed set. */
export type JobReply = [state: JobState, values: (string | null)[], score?: string | null]

/** BullMQ keeps twelve bits beside the time in the score of a delayed job (getDelayedScore). */
const SCORE_PER_MS = 0x1000

export function resourceFromReply(ref: JobRef, [state, values, score]: JobReply): JobResource {
  const hash: Partial<JobHash> = {}
  for (let index = 0; index < values.length; index++) {
    const value = values[index]
    if (value !== null && value !== undefined) hash[FIELDS_AND_DATA[index]!] = value
  }
  const delayedUntilMs = typeof score === 'string' ? Math.floor(Number(score) / SCORE_PER_MS) : undefined
  return resourceFromHash(ref, state, hash as JobHash, delayedUntilMs)
}
