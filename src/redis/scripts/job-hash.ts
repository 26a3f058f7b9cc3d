/**
 * The fields that scripts read of each job, and the conversion of their replies into a {@link JobRecord}. Shared by
 * read-jobs.ts and list-jobs.ts.
 */

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

export interface JobRecord {
  /** One of BullMQ's states. */
  state: string
  hash: JobHash
  /** Ms since 1970, from the delayed set, which alone knows when a retry is due; `undefined` unless delayed. */
  delayedUntilMs: number | undefined
}

/** In the order in which scripts fetch them. job-fields.lua names the first two, which scripts read themselves. */
export const JOB_FIELDS: readonly (keyof JobHash)[] = [
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

/** `data` comes last, so that a reply without it is decoded by the same positions. */
export const JOB_FIELDS_AND_DATA: readonly (keyof JobHash)[] = [...JOB_FIELDS, 'data']

/** One job in a raw reply: its state, the values of {@link JOB_FIELDS} (and data), its score in the delayed set. */
export type JobReply = [state: string, values: (string | null)[], score?: string | null]

/** BullMQ shifts the due time left by twelve bits to make the score of a delayed job (getDelayedScore). */
const SCORE_PER_MS = 0x1000

export function toJobRecord(state: string, values: (string | null)[], score?: string | null): JobRecord {
  const hash: Partial<JobHash> = {}
  for (let index = 0; index < values.length; index++) {
    const value = values[index]
    if (value !== null && value !== undefined) hash[JOB_FIELDS_AND_DATA[index]!] = value
  }
  const delayedUntilMs = typeof score === 'string' ? Math.floor(Number(score) / SCORE_PER_MS) : undefined
  return { state, hash: hash as JobHash, delayedUntilMs }
}
