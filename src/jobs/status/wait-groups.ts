/**
 * Which jobs are waited for, and by whom: all who wait for one representation of one job are a group, and the groups of
 * a queue keep it followed. One listener hears for all of them, so that those who wait cost nothing there.
 */
import type { EventSubscription, QueueEvent, QueueEvents } from '../../events/queue-events.ts'
import type { JobRef } from '../job-id.ts'
import type { Include } from './job-reader.ts'
import type { CachedJob } from './status-cache.ts'

export interface WaitGroup<Waiter> {
  id: string
  ref: JobRef
  include: Include
  waiters: Set<Waiter>
  /** Those who will wait for it. */
  expected: number
  following: FollowedQueue<Waiter>
  looking: Promise<void> | undefined
  /** Something happened since the look under way began. */
  lookAgain: boolean
  last: CachedJob | undefined
  /** The event that told the end of the job. */
  end: QueueEvent | undefined
}

/** A queue with jobs that somebody waits for. */
export interface FollowedQueue<Waiter> {
  queue: string
  groups: Set<WaitGroup<Waiter>>
  /** Resolves when its events are heard; rejects when Redis cannot be asked. */
  started: Promise<EventSubscription>
  /** At the last look events were not heard; a moment of that is no reason to look. */
  wasDeaf: boolean
}

export interface WaitGroups<Waiter> {
  readonly size: number
  /** The group of a job; a new one begins to hear of it. */
  of(ref: JobRef, include: Include): WaitGroup<Waiter>
  /** Forgets it when nobody waits for it any more; whether that is so. */
  closeIfIdle(group: WaitGroup<Waiter>): boolean
  all(): Iterable<WaitGroup<Waiter>>
  followings(): Iterable<FollowedQueue<Waiter>>
}

export interface WaitGroupsOptions<Waiter> {
  onEvent(group: WaitGroup<Waiter>, event: QueueEvent): void
  onGap(group: WaitGroup<Waiter>): void
}

/** By what is included: nothing, data, logs, both. No id holds a space. */
const VARIANTS = ['', ' d', ' l', ' dl']

export function createWaitGroups<Waiter>(
  events: Pick<QueueEvents, 'listen' | 'keep'>,
  { onEvent, onGap }: WaitGroupsOptions<Waiter>,
): WaitGroups<Waiter> {
  const groups = new Map<string, WaitGroup<Waiter>>()
  const followings = new Map<string, FollowedQueue<Waiter>>()

  events.listen({
    onEvent(event) {
      if (event.key === undefined || !followings.has(event.queue)) return
      const id = `${event.queue}:${event.key}`
      for (const variant of VARIANTS) {
        const group = groups.get(id + variant)
        if (group) onEvent(group, event)
      }
    },
    onGap(queue) {
      for (const group of followings.get(queue)?.groups ?? []) onGap(group)
    },
  })

  function open(id: string, ref: JobRef, include: Include): WaitGroup<Waiter> {
    const following = follow(ref.queue)
    // Written out: an object that is spread together has a shape of its own, which is larger than the object.
    const group: WaitGroup<Waiter> = {
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
    return group
  }

  function follow(queue: string): FollowedQueue<Waiter> {
    let following = followings.get(queue)
    if (!following) {
      following = { queue, groups: new Set(), started: events.keep(queue), wasDeaf: false }
      followings.set(queue, following)
    }
    return following
  }

  function leave({ groups: others, queue, started }: FollowedQueue<Waiter>): void {
    if (others.size > 0) return
    followings.delete(queue)
    started.then(
      (subscription) => subscription.close(),
      () => {},
    )
  }

  return {
    get size() {
      return groups.size
    },
    of(ref, include) {
      const id = `${ref.queue}:${ref.key}${VARIANTS[(include.data ? 1 : 0) + (include.logs ? 2 : 0)]}`
      return groups.get(id) ?? open(id, ref, include)
    },
    closeIfIdle(group) {
      if (group.waiters.size > 0 || group.expected > 0 || groups.get(group.id) !== group) return false
      groups.delete(group.id)
      group.following.groups.delete(group)
      leave(group.following)
      return true
    },
    all: () => groups.values(),
    followings: () => followings.values(),
  }
}
