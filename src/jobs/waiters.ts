/**
 * Those who wait for a job: to have finished, or to have changed. However many there are, they hold no connection and
 * no timer each, and cost nothing while nothing happens: an event of the job makes one look for all who wait for it.
 *
 *   wait ─ subscribe, then look ─ done → answered
 *                               └ not yet → [event · gap · a second without live events] → look again … → time up → answered
 *
 * Subscribed before the first look, nobody can miss what happens between the two.
 */
import { SluiceError } from '../errors.ts'
import type { QueueEvent, QueueEvents, Subscription } from '../queues/events.ts'
import { isAfter } from '../redis/stream-place.ts'
import type { JobRef } from './id.ts'
import type { Include } from './job-reader.ts'
import { finishedBy, type JobResource } from './job-resource.ts'
import { isNotModified } from './polling.ts'
import { type CachedJob, type Found, type StatusCache, toCachedJob } from './status-cache.ts'

export type Until = 'finished' | 'change'

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

/** All who wait for one representation of one job. */
interface Group {
  id: string
  ref: JobRef
  include: Include
  waiters: Set<Waiter>
  /** Those who will wait for it. */
  expected: number
  following: Following
  looking: Promise<void> | undefined
  /** Something happened since the look under way began. */
  lookAgain: boolean
  last: CachedJob | undefined
  /** The event that told the end of the job. */
  end: QueueEvent | undefined
}

/** A queue with jobs that somebody waits for. */
interface Following {
  groups: Set<Group>
  /** Resolves when its events are heard. */
  started: Promise<Subscription>
  /** At the last look events were not heard; a moment of that is no reason to look. */
  wasDeaf: boolean
}

/** By what is included: nothing, data, logs, both. No id holds a space. */
const VARIANTS = ['', ' d', ' l', ' dl']
const TICK_MS = 100
/** Where events have not been heard for this long, a look this often, for all who wait for a job together. */
const DEAF_LOOK_MS = 1_000

export function createWaiters(
  statusCache: StatusCache,
  events: Pick<QueueEvents, 'feed' | 'listen' | 'keep'>,
): Waiters {
  const groups = new Map<string, Group>()
  const followings = new Map<string, Following>()
  const dueBy = new Map<number, Set<Waiter>>()
  /** Found to be gone before their last event was heard, which comes within a moment; else they are looked at again. */
  const doubtful = new Set<Group>()
  let tick = 0
  let ticker: NodeJS.Timeout | undefined
  let waiting = 0
  let closing = false
  // One listener for all, so that those who wait cost nothing there. The cache, which listens before us, has thrown out
  // what an event made old when we look.
  events.listen({
    onEvent(event) {
      if (event.key === undefined || !followings.has(event.queue)) return
      const id = `${event.queue}:${event.key}`
      for (const variant of VARIANTS) {
        const group = groups.get(id + variant)
        if (group) hear(group, event)
      }
    },
    onGap(queue) {
      for (const group of followings.get(queue)?.groups ?? []) look(group)
    },
  })

  function hear(group: Group, event: QueueEvent): void {
    group.end = event.event === 'completed' || event.event === 'failed' ? event : undefined
    if (event.event === 'removed') group.last = undefined
    look(group)
  }

  function groupOf(ref: JobRef, include: Include): Group {
    const id = `${ref.queue}:${ref.key}${VARIANTS[(include.data ? 1 : 0) + (include.logs ? 2 : 0)]}`
    return groups.get(id) ?? open(id, ref, include)
  }

  function open(id: string, ref: JobRef, include: Include): Group {
    const following = follow(ref.queue)
    // Written out: an object that is spread together has a shape of its own, which is larger than the object.
    const group: Group = {
      id,
      ref,
      include,
      waiters: new Set(),
      expected: 0,
      following,
      looking: undefined,
      lookAgain: false,
      last: undefined,
      end: undefined,
    }
    following.groups.add(group)
    groups.set(id, group)
    if (ticker === undefined) {
      tick = tickOf(performance.now())
      ticker = setInterval(onTick, TICK_MS)
    }
    return group
  }

  function follow(queue: string): Following {
    let following = followings.get(queue)
    if (!following) {
      following = { groups: new Set(), started: events.keep(queue), wasDeaf: false }
      followings.set(queue, following)
    }
    return following
  }

  function closeIfIdle(group: Group): void {
    if (group.waiters.size > 0 || group.expected > 0 || groups.get(group.id) !== group) return
    groups.delete(group.id)
    doubtful.delete(group)
    unfollow(group)
    if (groups.size > 0) return
    clearInterval(ticker)
    ticker = undefined
  }

  function unfollow(group: Group): void {
    const { ref, following } = group
    following.groups.delete(group)
    if (following.groups.size > 0) return
    followings.delete(ref.queue)
    following.started.then(
      (subscription) => subscription.close(),
      () => {},
    )
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
    return feed?.isLive === true && isAfter(place, feed.place)
  }

  function finish(waiter: Waiter, tell: () => void): void {
    const { group, due } = waiter
    if (!group.waiters.delete(waiter)) return
    const sameTick = dueBy.get(due)
    if (sameTick?.delete(waiter) && sameTick.size === 0) dueBy.delete(due)
    waiting--
    tell()
    closeIfIdle(group)
  }

  function onTick(): void {
    const now = tickOf(performance.now())
    const inDoubt = [...doubtful]
    doubtful.clear()
    for (const group of inDoubt) look(group)
    for (; tick < now; tick++) {
      for (const waiter of dueBy.get(tick) ?? []) timeUp(waiter)
      if (tick % (DEAF_LOOK_MS / TICK_MS) === 0) lookWhereDeaf()
    }
  }

  function timeUp(waiter: Waiter): void {
    finish(waiter, () => {
      if (waiter.hasLooked) read(waiter.group).then(waiter.resolve, waiter.reject)
      else waiter.reject(new SluiceError('REDIS_TIMEOUT', { retryAfterS: 1 }))
    })
  }

  function lookWhereDeaf(): void {
    for (const [queue, following] of followings) {
      const isDeaf = !events.feed(queue)?.isLive
      if (isDeaf && following.wasDeaf) for (const group of following.groups) look(group)
      following.wasDeaf = isDeaf
    }
  }

  return {
    wait({ ref, include, until, etag, known, waitMs }) {
      const group = groupOf(ref, include)
      group.last ??= known && toCachedJob(known)
      const due = tickOf(performance.now() + waitMs) + 1
      let waiter!: Waiter
      const answer = new Promise<Found>((resolve, reject) => {
        waiter = { group, until, etag, due, hasLooked: false, resolve, reject }
      })
      group.waiters.add(waiter)
      dueBy.set(due, (dueBy.get(due) ?? new Set()).add(waiter))
      waiting++
      look(group)
      return { answer, leave: () => finish(waiter, () => {}) }
    },
    async expect(ref) {
      const group = groupOf(ref, { data: false, logs: false })
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
      for (const group of groups.values()) look(group)
      await Promise.all([...groups.values()].map(({ looking }) => looking))
      clearInterval(ticker)
    },
  }
}

/** Without a tag of the client's, the first look is what it is compared with. */
function hasChanged(waiter: Waiter, job: CachedJob): boolean {
  waiter.etag ??= job.etag
  return !isNotModified(waiter.etag, job.etag)
}

function tickOf(ms: number): number {
  return Math.floor(ms / TICK_MS)
}
