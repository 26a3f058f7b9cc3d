/** Creates the next job of a job scheduler when a job of it is taken, as BullMQ's Worker does. */
import {
  isLegacyRepeatableJobKey,
  Job,
  type JobJson,
  JobScheduler,
  type RepeatOptions,
  raw2NextJobData,
} from 'bullmq'
import type { Logger } from 'pino'
import { jsonText } from '../bullmq/json-syntax.ts'
import { SluiceError } from '../errors.ts'
import type { BackendFactory } from '../queues/shared-backend.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'

/**
 * Resolves with whether a worker may get the job. It may not while Redis refuses the next job: the scheduler would end with
 * this one.
 */
export type ScheduleNext = (
  queue: string,
  schedulerId: string,
  /** The job's hash: names and values in turn. */
  fields: string[],
  key: string,
) => Promise<boolean>

const NEXT: RedisOperation = { label: 'scheduleNext', priority: 'settle', isWrite: true, commands: 1 }

export function createSchedulerIteration(
  { prefix }: Keyspace,
  backendOf: BackendFactory,
  gateway: RedisGateway,
  log: Logger,
): ScheduleNext {
  return async (queue, id, fields, key) => {
    const scheduler = new JobScheduler(queue, { connection: {}, prefix }, (of, own) => backendOf(of, own))
    scheduler.on('error', () => {})
    try {
      const [json] = raw2NextJobData([withJsonData(fields)])
      const { name, data, opts } = Job.fromJSON(scheduler, json as JobJson, key)
      await gateway.onAdmin(NEXT, async () => {
        // Repeatable jobs of BullMQ 5 and older end here, as with a native worker.
        if (isLegacyRepeatableJobKey(id) && !(await scheduler.isJobScheduler(id))) return
        const once = { override: false, producerId: key }
        await scheduler.upsertJobScheduler(
          id,
          (opts as { repeat: RepeatOptions }).repeat,
          name,
          data,
          opts,
          once,
        )
      })
      return true
    } catch (error) {
      const { code, cause } = error as SluiceError
      if (error instanceof SluiceError && code !== 'INTERNAL') return false
      // The scheduler is broken (an invalid pattern, for example), but a worker can process this job.
      log.error({ queue, scheduler: id, reason: String(cause ?? error) }, 'Scheduler created no further job')
      return true
    }
  }
}

/** Data that are not JSON become a JSON string, as workers get them. */
function withJsonData(fields: readonly string[]): string[] {
  return fields.map((value, at) => (at % 2 === 1 && fields[at - 1] === 'data' ? jsonText(value) : value))
}
