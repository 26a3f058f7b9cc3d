/**
 * Lists the jobs of a queue page by page, newest first: one command per page (list-jobs.lua), whose cost does not grow
 * with the queue. A cursor names the job after which the next page starts, so that jobs which come and go between two
 * pages shift nothing.
 */
import type { JobState } from '../../bullmq/job-states.ts'
import {
  bytesOfPart,
  createJsonWriter,
  type JsonPart,
  writePart,
  writtenJson,
} from '../../json/json-writer.ts'
import type { PacedTurns } from '../../paced-turns.ts'
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { ByteBudget } from '../../redis/gateway/byte-budget.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import { type ListedPage, listJobs } from '../../redis/scripts/list-jobs.ts'
import { toBrief } from './answer-size.ts'
import { decodeCursor, encodeCursor } from './job-cursor.ts'
import { bodyOf, type JobResource } from './job-resource.ts'
import { resourceFromRecord } from './stored-job.ts'

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
  /**
   * May hold fewer jobs than `limit`: it ends early when the next job does not fit into the response, and ids without a
   * job are skipped. Only `cursor` marks the end.
   */
  jobs: JobResource[]
  /** `null`: this is the last page. */
  cursor: string | null
}

export interface JobLister {
  /**
   * A job in the collections of several states is in the pages of each, with the state that BullMQ gives it. Rejects with a
   * SluiceError: INVALID_REQUEST for an invalid cursor, or the gateway's.
   */
  page(request: ListRequest): Promise<JobPage>
  /** The page as JSON text. Rejects also with OVERLOADED when too many large reads wait. */
  pageText(request: ListRequest): Promise<JsonPart>
}

export interface JobListerDeps {
  registry: QueueRegistry
  gateway: RedisGateway
  byteBudget: ByteBudget
  turns: Pick<PacedTurns, 'perBytes'>
  /** MAX_ANSWER_BYTES. */
  maxBytes: number
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

export function createJobLister(deps: JobListerDeps): JobLister {
  const { registry, gateway, byteBudget, turns, maxBytes } = deps

  async function read(request: ListRequest): Promise<ListedPage> {
    const { queue, state, limit, cursor } = request
    const all = (state === undefined ? LISTED_STATES : [state]).flatMap(collectionsOf)
    const start = cursor === undefined ? undefined : decodeCursor(cursor, request, all)
    const collections = start === undefined ? all : all.slice(all.indexOf(start.collection))
    const base = registry.base(queue)
    const listed = await gateway.onAdmin(LIST, (client) =>
      listJobs(client, { base, collections, limit, maxBytes, bookmark: start?.bookmark }),
    )
    if (listed.jobs.length > 0) registry.remember(queue)
    return listed
  }

  async function page(request: ListRequest): Promise<JobPage> {
    const { queue } = request
    const { jobs, next } = await read(request)
    return {
      jobs: jobs.map(({ key, job }) => resourceFromRecord({ queue, key }, job, maxBytes, registry.jobIdOf)),
      cursor: next === undefined ? null : encodeCursor(request, next),
    }
  }

  /** A value may be longer in the response than in Redis, where the page was measured; then the last jobs are brief. */
  async function renderPage(request: ListRequest): Promise<JsonPart> {
    const { jobs, next } = await read(request)
    const pace = turns.perBytes()
    const page = createJsonWriter('{"jobs":[')
    let leftBytes = maxBytes
    for (const [index, { key, job }] of jobs.entries()) {
      const resource = resourceFromRecord({ queue: request.queue, key }, job, maxBytes, registry.jobIdOf)
      let body = bodyOf(resource)
      if (index > 0 && bytesOfPart(body) > leftBytes) body = bodyOf(toBrief(resource))
      if (index > 0) page.text += ','
      writePart(page, body)
      leftBytes -= bytesOfPart(body)
      await pace(body.length)
    }
    const cursor = next === undefined ? null : encodeCursor(request, next)
    page.text += `],"cursor":${JSON.stringify(cursor)}}`
    return writtenJson(page)
  }

  return {
    page,
    pageText: (request) => byteBudget.hold(maxBytes, () => renderPage(request)),
  }
}

/** BullMQ's collections for a state. Old versions kept the waiting jobs of a paused queue in `paused`. */
function collectionsOf(state: JobState): string[] {
  return state === 'waiting' ? ['wait', 'paused'] : [state]
}
