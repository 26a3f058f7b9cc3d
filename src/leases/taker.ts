/**
 * Workers that ask for jobs, and those of them who wait: served in turn, by one command at a time for each queue, woken by
 * the queue's events, by the time its next delayed job is due or its rate limit ends, and by a slow net below.
 *
 *   asks → nobody before it: take at once → jobs, or → in line → [event · due · limit over · net] → take for the first in line
 */
import type { QueueEvent, QueueEvents, Subscription } from '../queues/events.ts'
import type { Taken, TakeRequest, Work } from '../queues/work.ts'
import type { StalledRecovery } from './stalled.ts'

export interface Taker {
  /**
   * Resolves with jobs, or with none when the time is up. Rejects with a SluiceError. `signal`: the client has left; a job
   * that is taken for it in that very moment goes to the next in line, or back.
   */
  take(request: TakeRequest, waitMs: number, signal: AbortSignal): Promise<Taken['jobs']>
  /** Nobody waits for a job of this queue here, so that whoever asks may be served at once. */
  isFree(queue: string): boolean
  /** Jobs were stored here a moment ago: sooner than their events are heard. */
  poke(queue: string): void
  waiting(): number
  /** Sends all who wait home, with nothing. */
  close(): Promise<void>
}

interface Waiter {
  request: TakeRequest
  finish(jobs: Taken['jobs']): void
  fail(error: unknown): void
  isGone: boolean
}

interface Line {
  queue: string
  waiters: Set<Waiter>
  taking: boolean
  /** Something has happened since the take under way began. */
  again: boolean
  timer: NodeJS.Timeout | undefined
  subscription: Promise<Subscription | undefined>
}

/** While events are heard, nothing should be found so; while they are not, this is how jobs are found. */
const NET_MS = 60_000
const NET_DEAF_MS = 1_000
/** What makes a job ready, or lets one be taken again. */
const NEWS = new Set(['waiting', 'delayed', 'resumed', 'completed', 'failed', 'stalled', 'removed'])

export function createTaker(
  work: Work,
  events: Pick<QueueEvents, 'subscribe' | 'feed'>,
  stalled: Pick<StalledRecovery, 'wanted'>,
): Taker {
  const lines = new Map<string, Line>()
  let closing = false

  function lineOf(queue: string): Line {
    let line = lines.get(queue)
    if (line) return line
    line = {
      queue,
      waiters: new Set(),
      taking: false,
      again: false,
      timer: undefined,
      subscription: Promise.resolve(undefined),
    }
    lines.set(queue, line)
    const own = line
    const listener = {
      onEvent: ({ event }: QueueEvent) => NEWS.has(event) && serve(own),
      onGap: () => serve(own),
    }
    // While Redis is away the net serves; what follows then begins with the next line.
    line.subscription = events.subscribe(queue, listener).catch(() => undefined)
    stalled.wanted(queue)
    // What came between the first look and the subscription is found by this one.
    void line.subscription.then(() => serve(own))
    return line
  }

  function serve(line: Line): void {
    if (line.taking) {
      line.again = true
      return
    }
    const [first] = line.waiters
    if (!first) {
      leave(line)
      return
    }
    line.taking = true
    line.again = false
    work.take(first.request).then(
      (taken) => {
        line.taking = false
        hand(line, first, taken)
      },
      (error: unknown) => {
        line.taking = false
        // It waits on: Redis may be back before its time is up. Whoever asks anew is told.
        if (line.waiters.size > 0) wakeIn(line, NET_DEAF_MS)
        if (!first.isGone && !line.waiters.has(first)) first.fail(error)
      },
    )
  }

  function hand(line: Line, first: Waiter, taken: Taken): void {
    if (taken.jobs.length > 0) give(line, first, taken.jobs)
    if (taken.jobs.length > 0 || line.again) serve(line)
    else if (line.waiters.size > 0) wakeIn(line, untilNews(line, taken))
    else leave(line)
  }

  /** To whom they were taken for, or to the next in line; with nobody left they go back. */
  function give(line: Line, first: Waiter, jobs: Taken['jobs']): void {
    const taker = first.isGone ? [...line.waiters][0] : first
    if (taker) {
      line.waiters.delete(taker)
      taker.finish(jobs)
      return
    }
    const items = jobs.map((held) => ({ held, outcome: { outcome: 'release' as const } }))
    // What cannot be given back now stalls, and comes back so.
    work.settle(line.queue, items, undefined).catch(() => {})
  }

  function untilNews(line: Line, { limitedMs, nextAtMs }: Taken): number {
    const net = events.feed(line.queue)?.isLive ? NET_MS : NET_DEAF_MS
    const dueMs = nextAtMs > 0 ? Math.max(1, nextAtMs - Date.now()) : net
    return Math.min(net, limitedMs > 0 ? Math.max(limitedMs, 1) : dueMs)
  }

  function wakeIn(line: Line, ms: number): void {
    clearTimeout(line.timer)
    line.timer = setTimeout(serve, Math.ceil(ms), line)
  }

  function leave(line: Line): void {
    if (line.waiters.size > 0 || line.taking) return
    clearTimeout(line.timer)
    if (lines.get(line.queue) === line) lines.delete(line.queue)
    void line.subscription.then((subscription) => subscription?.close())
  }

  function wait(request: TakeRequest, waitMs: number, signal: AbortSignal): Promise<Taken['jobs']> {
    return new Promise((resolve, reject) => {
      const line = lineOf(request.queue)
      const end = () => {
        clearTimeout(timeout)
        signal.removeEventListener('abort', goAway)
      }
      const waiter: Waiter = {
        request,
        isGone: false,
        finish(jobs) {
          end()
          resolve(jobs)
        },
        fail(error) {
          end()
          reject(error)
        },
      }
      const goAway = () => {
        waiter.isGone = true
        line.waiters.delete(waiter)
        waiter.finish([])
        leave(line)
      }
      const timeout = setTimeout(goAway, waitMs)
      signal.addEventListener('abort', goAway, { once: true })
      line.waiters.add(waiter)
    })
  }

  return {
    async take(request, waitMs, signal) {
      const line = lines.get(request.queue)
      // Others were here before.
      if (!line || line.waiters.size === 0) {
        const taken = await work.take(request)
        if (taken.jobs.length > 0 || waitMs === 0 || closing || signal.aborted) {
          if (signal.aborted && taken.jobs.length > 0) {
            give(lineOf(request.queue), { request, isGone: true, finish() {}, fail() {} }, taken.jobs)
            return []
          }
          return taken.jobs
        }
        const waited = wait(request, waitMs, signal)
        const own = lines.get(request.queue)!
        wakeIn(own, untilNews(own, taken))
        return waited
      }
      return waitMs === 0 || closing || signal.aborted ? [] : wait(request, waitMs, signal)
    },
    isFree: (queue) => (lines.get(queue)?.waiters.size ?? 0) === 0,
    poke(queue) {
      const line = lines.get(queue)
      if (line && line.waiters.size > 0) serve(line)
    },
    waiting: () => [...lines.values()].reduce((sum, { waiters }) => sum + waiters.size, 0),
    async close() {
      closing = true
      for (const line of [...lines.values()]) {
        for (const waiter of [...line.waiters]) {
          waiter.isGone = true
          line.waiters.delete(waiter)
          waiter.finish([])
        }
        leave(line)
      }
    },
  }
}
