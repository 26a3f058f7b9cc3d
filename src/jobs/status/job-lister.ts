/**
 * The jobs of a queue page by page, newest first: one command a page (list-jobs.lua), whose cost does not grow with the
 * queue. A cursor says behind which job the next page begins, so that what comes and goes meanwhile shifts nothing.
 *
 * A cursor is not signed: a forged one shows nothing of the queue that its owner could not ask for anyway.
 */

import type { JobState } from '../../bullmq/job-states.ts'
import { SluiceError } from '../../errors.ts'
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import { listJobsScript, runScript } from '../../redis/scripts/run-script.ts'
import { FIELDS, type JobReply, resourceFromReply } from './job-fields.ts'
import type { JobResource } from './job-resource.ts'

export interface ListRequest {
  queue: string
  /** `undefined`: every state, one after the other, in the order of {@link LISTED_STATES}. */
  state?: JobState | undefined
  /** 1 to 200, which the caller has seen to. */
  limit: number
  /** Of the page before, and of the same queue and state. */
  cursor?: string | undefined
}

export interface JobPage {
  /** Fewer than asked for, even none, when ids are passed over whose jobs are gone: only the cursor tells the end. */
  jobs: JobResource[]
  /** `null`: there is no more. */
  cursor: string | null
}

export interface JobLister {
  /**
   * A job's state is that of the place it was found in. Rejects with a SluiceError: INVALID_REQUEST for a cursor that
   * cannot be, and what the gateway says.
   */
  page(request: ListRequest): Promise<JobPage>
}

/** As jobs go through them: one that moves on while it is listed is shown twice rather than not at all. */
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
  return {
    async page(request) {
      const { queue, state, limit, cursor } = request
      const places = (state === undefined ? LISTED_STATES : [state]).flatMap(placesOf)
      const begin = cursor === undefined ? undefined : openCursor(cursor, request, places)
      const base = registry.base(queue)
      const left = begin === undefined ? places : places.slice(places.indexOf(begin.place))
      const keys = left.map((place) => base + place)
      const args = [base, limit, FIELDS.length, ...FIELDS, ...(begin?.mark ?? [])]
      const [found, place, mark] = (await gateway.onAdmin(LIST, (client) =>
        runScript(client, listJobsScript, keys, args),
      )) as Reply
      if (found.length > 0) registry.remember(queue)
      const jobs = found.map(([key, ...job]) => resourceFromReply({ queue, key }, job))
      return { jobs, cursor: place && mark ? closeCursor(request, { place, mark }) : null }
    },
  }
}

type Reply = [jobs: [key: string, ...job: JobReply][], place?: string, mark?: Mark]

/** Where a page ended, in the script's own words. */
type Mark = (string | number)[]
interface Position {
  place: string
  mark: Mark
}

/** BullMQ's keys. Old versions kept the waiting jobs of a paused queue in `paused`, where the script finds them still. */
function placesOf(state: JobState): string[] {
  return state === 'waiting' ? ['wait', 'paused'] : [state]
}

/** Raised when a mark changes its meaning. */
const CURSOR_VERSION = 1
/** As much as fits into a request. */
const CURSOR_MAX = 8_192

function closeCursor({ queue, state = null }: Scope, { place, mark }: Position): string {
  return Buffer.from(JSON.stringify([CURSOR_VERSION, queue, state, place, ...mark])).toString('base64url')
}

type Scope = { queue: string; state?: JobState | null | undefined }

function openCursor(text: string, { queue, state = null }: Scope, places: string[]): Position {
  const [version, ofQueue, ofState, place, ...mark] = parse(text)
  const isWhole = version === CURSOR_VERSION && typeof place === 'string' && isMark(place, mark)
  if (!isWhole) {
    throw invalid('is not a cursor: send that of the page before as it is, or none to begin anew.')
  }
  if (ofQueue !== queue || ofState !== state || !places.includes(place)) {
    throw invalid(
      'is of another query: send it with the queue and state it came from, or none to begin anew.',
    )
  }
  return { place, mark }
}

function parse(text: string): unknown[] {
  if (text.length > CURSOR_MAX) return []
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString())
    return Array.isArray(value) ? value : []
  } catch {
    return []
  }
}

const LISTS = ['wait', 'paused', 'active']
/** What Redis prints for a double. */
const SCORE = /^-?(\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?|inf)$/
/** More ids than Redis keeps in a list, and few enough that sums of them stay exact. */
const LENGTH_MAX = 2 ** 40
/** list-jobs.lua keeps three ids on either side. */
const NEIGHBOURS = 3

/** Whether the script can work with it; the shapes are told in the script's header. */
function isMark(place: string, mark: unknown[]): mark is Mark {
  if (!LISTS.includes(place)) {
    const [id, score, ...rest] = mark
    return typeof id === 'string' && typeof score === 'string' && SCORE.test(score) && rest.length === 0
  }
  const [offset, length, span, lastCount, ...ids] = mark
  return (
    isBetween(1, length, LENGTH_MAX) &&
    isBetween(0, offset, length - 1) &&
    isBetween(0, span, offset) &&
    isBetween(1, lastCount, NEIGHBOURS) &&
    isBetween(1 + lastCount, ids.length, 1 + lastCount + NEIGHBOURS) &&
    ids.every((id) => typeof id === 'string')
  )
}

function isBetween(least: number, value: unknown, most: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most
}

function invalid(detail: string): SluiceError {
  return new SluiceError('INVALID_REQUEST', { errors: [{ pointer: '?cursor', detail }] })
}
