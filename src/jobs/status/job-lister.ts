/**
 * Lists the jobs of a queue page by page, newest first: one command per page (list-jobs.lua), whose cost does not grow
 * with the queue. A cursor names the job after which the next page starts, so that jobs which come and go between two
 * pages shift nothing.
 */
import type { JobState } from '../../bullmq/job-states.ts'
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import { listJobs } from '../../redis/scripts/list-jobs.ts'
import { decodeCursor, encodeCursor } from './job-cursor.ts'
import { type JobResource, resourceFromRecord } from './job-resource.ts'

export interface ListRequest {
  queue: string
  /** `undefined`: every state, one after the other, in the order of {@link LISTED_STATES}. */
  state?: JobState | undefined
  /** 1 to 200; the caller has validated it. */
  limit: number
  /** From the previous page of the same queue and state. */
  cursor?: string | undefined
}

export interface JobPage {
  /** May hold fewer jobs than `limit`, even none, because ids without a job are skipped. Only `cursor` marks the end. */
  jobs: JobResource[]
  /** `null`: this is the last page. */
  cursor: string | null
}

export interface JobLister {
  /**
   * The state of a listed job is that of the collection it was found in. Rejects with a SluiceError: INVALID_REQUEST
   * for an invalid cursor, or the gateway's.
   */
  page(request: ListRequest): Promise<JobPage>
}

/** In the order in which jobs pass through them: a job that moves on between two pages is listed twice, not missed. */
export const LISTED_STATES: readonly JobState[] = [
  'delayed',
  'waiting-children',
  'prioritized',
  'waiting',
  'active',
  'failed',
  'completed',
]

const LIST: RedisOperation = { label: 'listJobs', priority: 'list', isWrite: false, commands: 1 }

export function createJobLister(registry: QueueRegistry, gateway: RedisGateway): JobLister {
  async function page(request: ListRequest): Promise<JobPage> {
    const { queue, state, limit, cursor } = request
    const all = (state === undefined ? LISTED_STATES : [state]).flatMap(collectionsOf)
    const start = cursor === undefined ? undefined : decodeCursor(cursor, request, all)
    const collections = start === undefined ? all : all.slice(all.indexOf(start.collection))
    const base = registry.base(queue)
    const { jobs, next } = await gateway.onAdmin(LIST, (client) =>
      listJobs(client, { base, collections, limit, bookmark: start?.bookmark }),
    )
    if (jobs.length > 0) registry.remember(queue)
    return {
      jobs: jobs.map(({ key, job }) => resourceFromRecord({ queue, key }, job)),
      cursor: next === undefined ? null : encodeCursor(request, next),
    }
  }

  return { page }
}

/** BullMQ's collections for a state. Old versions kept the waiting jobs of a paused queue in `paused`. */
function collectionsOf(state: JobState): string[] {
  return state === 'waiting' ? ['wait', 'paused'] : [state]
}
