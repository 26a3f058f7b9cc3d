/** Reads jobs of one queue, and the position of the queue's event stream, as of one instant (read-jobs.lua). */
import type { Redis } from 'ioredis'
import {
  BRIEF_FIELD_LIMITS,
  FIELD_LIMITS,
  JOB_FIELDS_AND_DATA,
  type JobRecord,
  type JobReply,
  toJobRecord,
} from './job-hash.ts'
import { loadScript, runScriptForBytes } from './run-script.ts'

const readJobsScript = loadScript('read-jobs')

export interface JobRequest {
  /** BullMQ's job id. */
  key: string
  withData: boolean
  withLogs: boolean
  /** Leave out what is longer than BRIEF_BYTES. */
  isBrief?: boolean
}

export interface ReplyLimit {
  /** Most bytes of the fields in the reply. */
  maxBytes: number
  /** Read the first job even if it does not fit, without the fields that do not. */
  mustReadFirst: boolean
}

export interface JobsAtPosition {
  /**
   * Id of the newest entry of the event stream; `0-0` if there is none. `jobs` reflects every event up to it and no
   * later one.
   */
  position: string
  /**
   * In the order of the requests. `undefined`: the job does not exist. `unread`: it did not fit, or follows one that did
   * not; read it with another command.
   */
  jobs: (JobRecordWithLogs | undefined | 'unread')[]
}

export interface JobRecordWithLogs extends JobRecord {
  /** The newest thousand lines, oldest first; `undefined` unless requested, `null` if the logs are not a list. */
  logs?: string[] | null
  /** Older ones of these lines did not fit. */
  areLogsCut?: boolean
}

type LoggedReply = [
  state: Buffer,
  values: JobReply[1],
  score: Buffer | null,
  logs: Buffer[] | -1,
  isCut: number,
]

type Reply = [position: Buffer, jobs: (Required<JobReply> | LoggedReply | 0 | null)[]]

/** `base` is what every key of the queue starts with (`bull:emails:`). Sends one command; rejects as Redis does. */
export async function readJobs(
  client: Redis,
  base: string,
  requests: readonly JobRequest[],
  { maxBytes, mustReadFirst }: ReplyLimit,
): Promise<JobsAtPosition> {
  const args = [base, maxBytes, mustReadFirst ? 1 : 0, ...FIELD_ARGUMENTS, ...requests.map(toArgument)]
  const [position, replies] = (await runScriptForBytes(client, readJobsScript, keysOf(base), args)) as Reply
  return {
    position: position.toString(),
    jobs: replies.map((reply) => {
      if (reply === null) return undefined
      if (reply === 0) return 'unread'
      const [state, values, score, logs, isCut] = reply
      const job: JobRecordWithLogs = toJobRecord(state, values, score)
      if (logs === undefined) return job
      job.logs = logs === -1 ? null : logs.map(String).reverse()
      job.areLogsCut = isCut === 1
      return job
    }),
  }
}

/** Id of the newest entry of the queue's event stream; `0-0` if there is none. Sends one command. */
export async function readStreamPosition(client: Redis, base: string): Promise<string> {
  const [position] = (await runScriptForBytes(client, readJobsScript, keysOf(base), [base, 0, 0, 0])) as Reply
  return position.toString()
}

function keysOf(base: string): string[] {
  return [`${base}events`]
}

const FIELD_ARGUMENTS = [
  JOB_FIELDS_AND_DATA.length,
  ...JOB_FIELDS_AND_DATA,
  ...FIELD_LIMITS,
  ...BRIEF_FIELD_LIMITS,
]

/** A flag (1 with data + 2 with logs + 4 brief), then the key. */
function toArgument({ key, withData, withLogs, isBrief }: JobRequest): string {
  return `${(withData ? 1 : 0) + (withLogs ? 2 : 0) + (isBrief ? 4 : 0)}${key}`
}
