/** The positions and codes that enqueue.ts and enqueue.lua share. They become Lua locals of the script. */
import { addScripts } from '../../bullmq/job-encoder.ts'

/** The values of a job in the message, in the order in which `packJobs` writes them. */
export const jobValues = [
  'SCRIPT',
  'IS_KEY_CHOSEN',
  'KEY',
  'NAME',
  'TIMESTAMP',
  'DEDUPLICATION_ID',
  'DATA',
  'OPTIONS',
  'RECORD_KEY',
  'FINGERPRINT',
  'ROUNDED_FINGERPRINT',
] as const

/** First element of a reply; CREATED is the whole reply. */
export const replyCodes = { CREATED: 1, DUPLICATE: 2, FAILED: 3, REPLAYED: 4, KEY_REUSED: 5 } as const

/** Lua locals: `JOB_KEY` is the offset of a job's key, `addDelayedJob` the number of BullMQ's script. */
export const enqueueConstants: Record<string, number> = {
  VALUES_PER_JOB: jobValues.length,
  ...Object.fromEntries(jobValues.map((name, index) => [`JOB_${name}`, index])),
  ...replyCodes,
  ...Object.fromEntries(addScripts.map((name, index) => [name, index + 1])),
}
