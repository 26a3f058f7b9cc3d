/** Creates the next job of a job scheduler when a job of it is taken, as BullMQ's Worker does. */
import { isLegacyRepeatableJobKey, Job, type JobJson, JobScheduler, type RepeatOptions } from 'bullmq'
import type { Logger } from 'pino'
import { SluiceError } from '../errors.ts'
import type { BackendFactory } from '../queues/shared-backend.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'

/**
 * Resolves with whether a worker may get the job. It may not while Redis refuses the next job: the scheduler would end with
 * this one.
 */
export type ScheduleNext = (queue: string, json: JobJson, key: string) => Promise<boolean>

const NEXT: RedisOperation = { label: 'scheduleNext', priority: 'settle', isWrite: true, commands: 1 }

export function createSchedulerIteration(
  { prefix }: Keyspace,
  backendOf: BackendFactory,
  gateway: RedisGateway,
  log: Logger,
): ScheduleNext {
  return async (queue, json, key) => {
    const id = json.repeatJobKey!
    const scheduler = new JobScheduler(queue, { connection: {}, prefix }, (of, own) => backendOf(of, own))
    scheduler.on('error', () => {})
    const { name, data, opts } = Job.fromJSON(scheduler, json, key)
    try {
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
