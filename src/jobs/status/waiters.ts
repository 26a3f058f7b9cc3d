/**
 * Those who wait for a job: to have finished, or to have changed. However many there are, they hold no connection and
 * no timer each, and cost nothing while nothing happens: an event of the job makes one look for all who wait for it.
 *
 *   wait ─ subscribe, then look ─ done → answered
 *                               └ not yet → [event · gap · a second without live events] → look again … → time up → answered
 *
 * Subscribed before the first look, nobody can miss what happens between the two.
 */
import { SluiceError } from '../../errors.ts'
import type { QueueEvent, QueueEvents } from '../../events/queue-events.ts'
import { isAfter } from '../../redis/streams/stream-position.ts'
import type { JobRef } from '../job-id.ts'
import type { Include } from './job-reader.ts'
import { finishedBy, type JobResource } from './job-resource.ts'
import { isNotModified, type Until } from './polling.ts'
import { type CachedJob, type Found, type StatusCache, toCachedJob } from './status-cache.ts'
import { createTimerWheel } from './timer-wheel.ts'
import { createWaitGroups, type WaitGroup } from './wait-groups.ts'

export interface WaitRequest {
  ref: JobRef
  include: Include
  until: Until
  /** For `change`: the If-None-Match of the client; without it, whatever the first look finds. */
  etag?: string | undefined
  /** What is known of it before the first look. */
  known?: JobResource | undefined
  waitMs: number
}

export interface Wait {
  /** The job when it is done, when the time is up, or when the service ends; rejects when Redis cannot be asked. */
  answer: Promise<Found>
  /** The client has gone: nothing is kept of it. */
  leave(): void
}

export interface Waiters {
  wait(request: WaitRequest): Wait
  /**
   * Begins to hear of a job that is about to be stored, so that its end is known even if nothing is kept of it
   * (removeOnComplete). Rejects when Redis cannot be asked.
   */
  expect(ref: JobRef): Promise<{ release(): void }>
  /** How many wait. */
  count(): number
  /** Answers all who wait. */
  close(): Promise<void>
}

interface Waiter {
  group: Group
  until: Until
  etag: string | undefined
  /** The tick in which its time is up. */
  due: number
  /** It has been found not to be done, so there is something to answer when the time is up. */
  hasLooked: boolean
  resolve(found: Found): void
  reject(error: unknown): void
}

type Group = WaitGroup<Waiter>

const TICK_MS = 100
/** Where events have not been heard for this long, a look this often, for all who wait for a job together. */
const DEAF_LOOK_MS = 1_000

export function createWaiters(
  statusCache: StatusCache,
  events: Pick<QueueEvents, 'feed' | 'listen' | 'keep'>,
): Waiters {
  // The cache, which listens before, has thrown out what an event made old when we look.
  const groups = createWaitGroups<Waiter>(events, { onEvent: hear, onGap: look })
  const ticker = createTimerWheel<Waiter>({ tickMs: TICK_MS, onDue: timeUp, onTick })
  /** Found to be gone before their last event was heard, which comes within a moment; else they are looked at again. */
  const doubtful = new Set<Group>()
  let waiting = 0
  let closing = false

  function hear(group: Group, event: QueueEvent): void {
    group.end = event.event === 'completed' || event.event === 'failed' ? event : undefined
    if (event.event === 'removed') group.last = undefined
    look(group)
  }

  function closeIfIdle(group: Group): void {
    if (!groups.closeIfIdle(group)) return
    doubtful.delete(group)
    if (groups.size === 0) ticker.stop()
  }

  function look(group: Group): void {
    if (group.waiters.size === 0) return
    group.lookAgain = true
    group.looking ??= lookNow(group).finally(() => {
      group.looking = undefined
      // Somebody may have come in the very moment it ended.
      if (group.lookAgain) look(group)
    })
  }

  async function lookNow(group: Group): Promise<void> {
    try {
      await group.following.started
      while (group.lookAgain && group.waiters.size > 0) {
        group.lookAgain = false
        settle(group, await read(group))
      }
    } catch (error) {
      group.lookAgain = false
      // Those who have seen it wait on, until it can be asked again or their time is up.
      for (const waiter of group.waiters) if (!waiter.hasLooked) finish(waiter, () => waiter.reject(error))
    }
  }

  /** Out of memory where the news has not thrown it out, else with all who ask for it now. */
  async function read({ ref, include }: Group): Promise<Found> {
    return statusCache.peek(`${ref.queue}:${ref.key}`, include, Date.now()) ?? statusCache.fetch(ref, include)
  }

  function settle(group: Group, read: Found): void {
    // It ended and was not kept: what its last event says is all there is.
    const departed = !read.job && group.end && group.last && finishedBy(group.last.body, group.end)
    const found: Found = departed ? { ...read, job: toCachedJob(departed) } : read
    const { job } = found
    if (job && !departed) group.last = job
    const isDoubtful = !job && group.last !== undefined && mayBeHeardOf(group.ref.queue, found.place)
    if (isDoubtful) doubtful.add(group)
    for (const waiter of group.waiters) {
      waiter.hasLooked = true
      if (isDoubtful && !closing) continue
      if (!job || job.finished || closing || (waiter.until === 'change' && hasChanged(waiter, job))) {
        finish(waiter, () => waiter.resolve(found))
      }
    }
  }

  /** It is gone, and not all that led to that has been heard. */
  function mayBeHeardOf(queue: string, place: string): boolean {
    const feed = events.feed(queue)
    return feed?.isLive === true && isAfter(place, feed.position)
  }

  function finish(waiter: Waiter, tell: () => void): void {
    const { group } = waiter
    if (!group.waiters.delete(waiter)) return
    ticker.remove(waiter, waiter.due)
    waiting--
    tell()
    closeIfIdle(group)
  }

  function onTick(tick: number): void {
    const inDoubt = [...doubtful]
    doubtful.clear()
    for (const group of inDoubt) look(group)
    if (tick % (DEAF_LOOK_MS / TICK_MS) === 0) lookWhereDeaf()
  }

  function timeUp(waiter: Waiter): void {
    finish(waiter, () => {
      if (waiter.hasLooked) read(waiter.group).then(waiter.resolve, waiter.reject)
      else waiter.reject(new SluiceError('REDIS_TIMEOUT', { retryAfterS: 1 }))
    })
  }

  function lookWhereDeaf(): void {
    for (const following of groups.followings()) {
      const isDeaf = !events.feed(following.queue)?.isLive
      if (isDeaf && following.wasDeaf) for (const group of following.groups) look(group)
      following.wasDeaf = isDeaf
    }
  }

  return {
    wait({ ref, include, until, etag, known, waitMs }) {
      const group = groups.of(ref, include)
      ticker.start()
      group.last ??= known && toCachedJob(known)
      const due = ticker.dueIn(waitMs)
      let waiter!: Waiter
      const answer = new Promise<Found>((resolve, reject) => {
        waiter = { group, until, etag, due, hasLooked: false, resolve, reject }
      })
      group.waiters.add(waiter)
      ticker.add(waiter, due)
      waiting++
      look(group)
      return { answer, leave: () => finish(waiter, () => {}) }
    },
    async expect(ref) {
      const group = groups.of(ref, { data: false, logs: false })
      group.expected++
      let isExpected = true
      const release = () => {
        if (!isExpected) return
        isExpected = false
        group.expected--
        closeIfIdle(group)
      }
      try {
        await group.following.started
      } catch (error) {
        release()
        throw error
      }
      return { release }
    },
    count: () => waiting,
    async close() {
      closing = true
      for (const group of groups.all()) look(group)
      await Promise.all([...groups.all()].map(({ looking }) => looking))
      ticker.stop()
    },
  }
}

/** Without a tag of the client's, the first look is what it is compared with. */
function hasChanged(waiter: Waiter, job: CachedJob): boolean {
  waiter.etag ??= job.etag
  return !isNotModified(waiter.etag, job.etag)
}
