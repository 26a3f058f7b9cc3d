/**
 * The fields that scripts read of each job, and the conversion of their replies into a {@link JobRecord}. Shared by
 * read-jobs.ts and list-jobs.ts.
 */

/** Fields of BullMQ's job hash, by BullMQ's names (job.js, `rawToJobJson`). JSON values are bytes, as they are stored. */
export interface JobHash {
  timestamp?: string
  name?: string
  opts?: string
  progress?: Buffer
  priority?: string
  atm?: string
  processedOn?: string
  finishedOn?: string
  returnvalue?: Buffer
  failedReason?: string
  stacktrace?: Buffer
  parentKey?: string
  deid?: string
  data?: Buffer
}

export interface JobRecord {
  /** One of BullMQ's states. */
  state: string
  hash: JobHash
  /** Ms since 1970, from the delayed set, which alone knows when a retry is due; `undefined` unless delayed. */
  delayedUntilMs: number | undefined
  /** Fields that exist but were too long to be read. */
  tooLong?: (keyof JobHash)[]
}

/**
 * In the order in which scripts fetch them: where not all fit, the last are left out. job-fields.lua has the position of
 * `timestamp`, which scripts read themselves.
 */
export const JOB_FIELDS: readonly (keyof JobHash)[] = [
  'finishedOn',
  'timestamp',
  'name',
  'opts',
  'priority',
  'atm',
  'processedOn',
  'parentKey',
  'deid',
  'progress',
  'failedReason',
  'returnvalue',
  'stacktrace',
]

/** `data` comes last, so that a reply without it is decoded by the same positions. */
export const JOB_FIELDS_AND_DATA: readonly (keyof JobHash)[] = [...JOB_FIELDS, 'data']

/** No valid number or time is longer. */
const NUMBER_BYTES = 64
/** No field of this kind that BullMQ or a person writes is longer. The options are parsed, at up to twenty times their size. */
const SHORT_BYTES = 65_536
const BRIEF_OPTIONS_BYTES = 4_096
/** Longer values are left out of a brief job. */
export const BRIEF_BYTES = 256

const kinds: Partial<Record<keyof JobHash, 'number' | 'options' | 'short' | 'json'>> = {
  finishedOn: 'number',
  timestamp: 'number',
  priority: 'number',
  atm: 'number',
  processedOn: 'number',
  opts: 'options',
  name: 'short',
  parentKey: 'short',
  deid: 'short',
  progress: 'json',
  returnvalue: 'json',
  stacktrace: 'json',
  data: 'json',
}

/** The longest value of each of {@link JOB_FIELDS_AND_DATA} that scripts read, bytes. */
export const FIELD_LIMITS = JOB_FIELDS_AND_DATA.map((field) => {
  switch (kinds[field]) {
    case 'number':
      return NUMBER_BYTES
    case 'options':
    case 'short':
      return SHORT_BYTES
    default:
      return Number.MAX_SAFE_INTEGER
  }
})

/** As {@link FIELD_LIMITS}, of a brief job. */
export const BRIEF_FIELD_LIMITS = JOB_FIELDS_AND_DATA.map((field) => {
  const kind = kinds[field]
  return kind === 'number' ? NUMBER_BYTES : kind === 'options' ? BRIEF_OPTIONS_BYTES : BRIEF_BYTES
})

/**
 * One job in a raw reply: its state, the values of {@link JOB_FIELDS} (and data), its score in the delayed set. A number is
 * the size of a value that was too long to be read.
 */
export type JobReply = [state: Buffer, values: (Buffer | number | null)[], score?: Buffer | null]

const isJsonField = JOB_FIELDS_AND_DATA.map((field) => kinds[field] === 'json')

/** BullMQ shifts the due time left by twelve bits to make the score of a delayed job (getDelayedScore). */
const SCORE_PER_MS = 0x1000

export function toJobRecord(state: Buffer, values: JobReply[1], score?: Buffer | null): JobRecord {
  const hash: Partial<Record<keyof JobHash, string | Buffer>> = {}
  let tooLong: (keyof JobHash)[] | undefined
  for (let index = 0; index < values.length; index++) {
    const value = values[index]
    const field = JOB_FIELDS_AND_DATA[index]!
    if (typeof value === 'number') tooLong = [...(tooLong ?? []), field]
    else if (value) hash[field] = isJsonField[index] ? value : value.toString()
  }
  const delayedUntilMs = score ? Math.floor(Number(score.toString()) / SCORE_PER_MS) : undefined
  const record: JobRecord = { state: state.toString(), hash: hash as JobHash, delayedUntilMs }
  if (tooLong !== undefined) record.tooLong = tooLong
  return record
}
