/** Reads jobs of one queue, and the position of the queue's event stream, as of one instant (read-jobs.lua). */
import type { Redis } from 'ioredis'
import { JOB_FIELDS_AND_DATA, type JobRecord, type JobReply, toJobRecord } from './job-hash.ts'
import { loadScript, runScript } from './run-script.ts'

const readJobsScript = loadScript('read-jobs')

export interface JobRequest {
  /** BullMQ's job id. */
  key: string
  withData: boolean
  withLogs: boolean
}

export interface JobsAtPosition {
  /**
   * Id of the newest entry of the event stream; `0-0` if there is none. `jobs` reflects every event up to it and no
   * later one.
   */
  position: string
  /** In the order of the requests; `undefined` for a job that does not exist. */
  jobs: (JobRecordWithLogs | undefined)[]
}

/** `logs`: the newest thousand lines, oldest first; `undefined` unless requested. */
export type JobRecordWithLogs = JobRecord & { logs?: string[] }

type Reply = [position: string, jobs: ([...JobReply] | [...JobReply, logs: string[]] | null)[]]

/** `base` is what every key of the queue starts with (`bull:emails:`). Sends one command; rejects as Redis does. */
export async function readJobs(
  client: Redis,
  base: string,
  requests: readonly JobRequest[],
): Promise<JobsAtPosition> {
  const args = [base, JOB_FIELDS_AND_DATA.length, ...JOB_FIELDS_AND_DATA, ...requests.map(toArgument)]
  const [position, replies] = (await runScript(client, readJobsScript, keysOf(base), args)) as Reply
  return {
    position,
    jobs: replies.map((reply) => {
      if (reply === null) return undefined
      const [state, values, score, logs] = reply
      const job: JobRecordWithLogs = toJobRecord(state, values, score)
      if (logs !== undefined) job.logs = logs
      return job
    }),
  }
}

/** Id of the newest entry of the queue's event stream; `0-0` if there is none. Sends one command. */
export async function readStreamPosition(client: Redis, base: string): Promise<string> {
  const [position] = (await runScript(client, readJobsScript, keysOf(base), [base, 0])) as Reply
  return position
}

function keysOf(base: string): string[] {
  return [`${base}events`]
}

/** A flag (0 plain, 1 with data, 2 with logs, 3 with both), then the key. */
function toArgument({ key, withData, withLogs }: JobRequest): string {
  return `${(withData ? 1 : 0) + (withLogs ? 2 : 0)}${key}`
}
