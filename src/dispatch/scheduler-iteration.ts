/** Creates the next job of a job scheduler when a job of it is taken, as BullMQ's Worker does. */
import {
  isLegacyRepeatableJobKey,
  Job,
  type JobJson,
  JobScheduler,
  type RepeatOptions,
  raw2NextJobData,
} from 'bullmq'
import { SluiceError } from '../errors.ts'
import { createStoredJson, type StoredJson } from '../json/stored-json.ts'
import type { BackendFactory } from '../queues/shared-backend.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'

export interface Iteration {
  /**
   * `created`: a worker may get the job, and the scheduler goes on, or has ended. `refused`: Redis refused the next job.
   * `unknown`: only native workers know when it is due. In both cases the scheduler would end with this job. `legacy`: a
   * repeatable job of BullMQ 5 or older, which ends here, as with a native worker.
   */
  result: 'created' | 'refused' | 'unknown' | 'legacy'
  reason?: string
}

/** Never rejects. */
export type ScheduleNext = (
  queue: string,
  schedulerId: string,
  /** The job's hash: names and values in turn. */
  fields: string[],
  key: string,
) => Promise<Iteration>

const NEXT: RedisOperation = { label: 'scheduleNext', priority: 'settle', isWrite: true, commands: 1 }

const READ: RedisOperation = { label: 'readScheduler', priority: 'settle', isWrite: false, commands: 1 }

export function createSchedulerIteration(
  { prefix }: Keyspace,
  backendOf: BackendFactory,
  gateway: RedisGateway,
): ScheduleNext {
  const json = createStoredJson()

  /** Resolves with when the scheduler's job that is not worked yet is due; `undefined`: there is no such scheduler. */
  async function nextOf(scheduler: JobScheduler, id: string): Promise<string | undefined> {
    const backend = backendOf(scheduler.name, scheduler.opts as Parameters<BackendFactory>[1])
    const [, nextMs] = await gateway.onAdmin(READ, () => backend.getJobScheduler(id))
    return nextMs ?? undefined
  }

  async function upsert(scheduler: JobScheduler, id: string, fields: string[], key: string): Promise<void> {
    const [next] = raw2NextJobData([withJsonData(fields, json)])
    const { name, data, opts } = Job.fromJSON(scheduler, next as JobJson, key)
    const { repeat } = opts as { repeat: RepeatOptions }
    const once = { override: false, producerId: key }
    await gateway.onAdmin(NEXT, () => scheduler.upsertJobScheduler(id, repeat, name, data, opts, once))
  }

  return async (queue, id, fields, key) => {
    const scheduler = new JobScheduler(queue, { connection: {}, prefix }, (of, own) => backendOf(of, own))
    scheduler.on('error', () => {})
    try {
      if (
        isLegacyRepeatableJobKey(id) &&
        !(await gateway.onAdmin(READ, () => scheduler.isJobScheduler(id)))
      ) {
        const isRegistered = (await nextOf(scheduler, id)) !== undefined
        return { result: isRegistered ? 'legacy' : 'created' }
      }
      try {
        await upsert(scheduler, id, fields, key)
        return { result: 'created' }
      } catch (error) {
        if (isRefusal(error)) throw error
        // Only a job that is due now has to be followed by another: not that of a removed scheduler, nor a retry.
        const nextMs = await nextOf(scheduler, id)
        if (nextMs === undefined || key !== `repeat:${id}:${nextMs}`) return { result: 'created' }
        return { result: 'unknown', reason: String((error as Error).cause ?? error) }
      }
    } catch (error) {
      return { result: 'refused', reason: String(error) }
    }
  }
}

/** The other errors are about the scheduler: a pattern that is not cron, for example. */
function isRefusal(error: unknown): boolean {
  return error instanceof SluiceError && error.code !== 'INTERNAL'
}

/** Data that are not JSON become a JSON string, as workers get them. */
function withJsonData(fields: readonly string[], json: StoredJson): string[] {
  return fields.map((value, at) =>
    at % 2 === 1 && fields[at - 1] === 'data' ? json.asJson(Buffer.from(value)).toString() : value,
  )
}
