/**
 * Consumers of a queue who ask for jobs, and those of them who wait: served in turn, with one command at a time, woken by
 * the queue's events, by the time its next delayed job is due or its rate limit ends, and by a slow net below. Where the
 * last look found nothing and nothing was heard since, nobody asks Redis again.
 *
 *   asks → others wait, or nothing can be there: in line  ·  else take → jobs, or in line
 *   in line → [event · due · limit over · net] → take for each in turn, until there is nothing
 */
import type { QueueEvent, QueueEvents } from '../events/queue-events.ts'
import { takeWithinCapacity } from './capacity.ts'
import type { TakeRequest, TakeResult } from './leased-job.ts'
import { subscribeWhenAvailable } from './queue-subscription.ts'
import type { StalledRecovery } from './stalled-recovery.ts'
import { EMPTY_TAKE } from './take-reply.ts'
import type { WorkerCommands } from './worker-commands.ts'

export interface Dispatcher {
  /**
   * Resolves with jobs, or with none when the time is up or the consumer's share has changed. Rejects with a SluiceError.
   * `signal`: the consumer has left; what is taken for it in that very moment goes back.
   * `seen`: what a look that was just made has brought.
   */
  take(request: TakeRequest, waitMs: number, signal: AbortSignal, seen?: Observation): Promise<TakeResult>
  /** What was heard of the queue so far. */
  version(queue: string): QueueVersion
  /** Nobody waits for a job of this queue here, so that whoever asks may be served at once. */
  hasNoWaiters(queue: string): boolean
  /** Jobs were stored here a moment ago: sooner than their events are heard. */
  notify(queue: string): void
  /** Jobs that were taken and reach nobody. */
  giveBack(
    request: Pick<TakeRequest, 'queue' | 'concurrencyLimit' | 'capacity'>,
    jobs: TakeResult['jobs'],
  ): void
  waiterCount(): number
  /** Nobody is kept waiting any more. */
  isClosing(): boolean
  /** Sends all who wait home, with nothing. */
  close(): void
}

/** How often something was heard that may bring a job: one that is ready, one that makes room for another. */
export interface QueueVersion {
  ready: number
  left: number
}

export interface Observation {
  taken: TakeResult
  /** As it was before the look. */
  version: QueueVersion
}

interface PendingTake {
  request: TakeRequest
  finish(taken: TakeResult): void
  isGone: boolean
}

interface QueueState {
  queue: string
  waiters: Set<PendingTake>
  isTaking: boolean
  heard: QueueVersion
  /** Until then there is no need to look; performance.now(). */
  quietUntil: number
  /** The last look was for one whose share is full: there may be jobs for others. */
  isOnlyFull: boolean
  /** The queue's own bound may be what keeps jobs back, so that every job that ends is news. */
  isBounded: boolean
  timer: NodeJS.Timeout | undefined
  /** Whether what happens to the queue is heard. */
  isLive(): boolean
  /** Ends what was begun for this queue. */
  end(): void
}

/** While events are heard, nothing should be found so but a bound that was lifted; while they are not, this is how jobs are found. */
const NET_MS = 60_000
const NET_DEAF_MS = 1_000
/** A line that nobody stands in any more is remembered, for those who ask again and again. */
const LINGER_MS = 60_000
const MOST_LINES = 1_000

const NOTHING_HEARD: QueueVersion = { ready: 0, left: 0 }
const JOB_READY = new Set(['waiting', 'resumed', 'stalled'])
const JOB_LEFT = new Set(['completed', 'failed', 'delayed', 'waiting-children', 'removed'])

export function createDispatcher(
  work: Pick<WorkerCommands, 'take' | 'settle'>,
  events: Pick<QueueEvents, 'subscribe' | 'feed'>,
  stalled: Pick<StalledRecovery, 'watch' | 'noteActive'>,
): Dispatcher {
  const lines = new Map<string, QueueState>()
  let isClosing = false
  let waiting = 0

  function open(queue: string): QueueState {
    const endWatch = stalled.watch(queue)
    const listener = { onEvent: (event: QueueEvent) => note(line, event), onGap: () => stir(line) }
    // What came between the first look and this is found by another.
    const hearing = subscribeWhenAvailable(events, queue, listener, () => stir(line))
    const line: QueueState = {
      ...{
        queue,
        waiters: new Set(),
        isTaking: false,
        heard: NOTHING_HEARD,
        quietUntil: 0,
        isOnlyFull: false,
      },
      ...{ isBounded: false, timer: undefined, isLive: hearing.isLive },
      end() {
        clearTimeout(line.timer)
        lines.delete(queue)
        endWatch()
        hearing.end()
      },
    }
    lines.set(queue, line)
    return line
  }

  function note(line: QueueState, { event, fields }: QueueEvent): void {
    if (event === 'active') stalled.noteActive(line.queue)
    if (JOB_READY.has(event)) stir(line)
    else if (JOB_LEFT.has(event)) {
      line.heard = { ...line.heard, left: line.heard.left + 1 }
      if (line.isBounded) lookNow(line)
    }
    // When it is due, ms since 1970. A look that is under way may have come before it.
    if (event === 'delayed') {
      line.heard = { ...line.heard, ready: line.heard.ready + 1 }
      lookIn(line, Number(fields['delay']) - Date.now())
    }
  }

  /** Something may be there. */
  function stir(line: QueueState): void {
    line.heard = { ...line.heard, ready: line.heard.ready + 1 }
    lookNow(line)
  }

  function lookNow(line: QueueState): void {
    line.quietUntil = 0
    void serve(line)
  }

  /** Looks after so many ms, unless it looks before anyway. */
  function lookIn(line: QueueState, ms: number): void {
    const at = performance.now() + Math.max(1, ms || 0)
    if (at >= line.quietUntil) return
    line.quietUntil = at
    wait(line)
  }

  function wait(line: QueueState): void {
    if (lines.get(line.queue) !== line) return
    clearTimeout(line.timer)
    if (line.waiters.size === 0) {
      if (lines.size > MOST_LINES || isClosing) line.end()
      else line.timer = setTimeout(line.end, LINGER_MS)
      return
    }
    const ms = Math.max(0, line.quietUntil - performance.now())
    line.timer = setTimeout(() => void serve(line), Math.ceil(ms))
  }

  async function serve(line: QueueState): Promise<void> {
    if (line.isTaking || line.waiters.size === 0) return
    line.isTaking = true
    try {
      while (await serveOnce(line)) {
        // What was heard meanwhile may have come after the look.
      }
    } catch {
      // They wait on: Redis may be back before their time is up. Whoever asks anew is told.
      line.quietUntil = performance.now() + NET_DEAF_MS
    } finally {
      line.isTaking = false
      wait(line)
    }
  }

  /** Resolves with whether there may be more. */
  async function serveOnce(line: QueueState): Promise<boolean> {
    const { heard } = line
    let taken = EMPTY_TAKE
    for (const waiter of line.waiters) {
      taken = await takeWithinCapacity(work, waiter.request)
      if (taken.jobs.length > 0 || taken.isLimitRevised) hand(line, waiter, taken)
      else if (!taken.isLimitReached) break
    }
    return line.waiters.size > 0 && !learn(line, { taken, version: heard })
  }

  /** From a look that found nothing. False when something was heard meanwhile, which may have come after it. */
  function learn(line: QueueState, { taken, version: heard }: Observation): boolean {
    const { limitedMs, nextAtMs, isBounded, isLimitReached: isShareFull } = taken
    line.isBounded = isBounded || isShareFull
    line.isOnlyFull = isShareFull
    if (line.heard.ready !== heard.ready || (line.isBounded && line.heard.left !== heard.left)) return false
    const net = line.isLive() ? NET_MS : NET_DEAF_MS
    const dueMs = nextAtMs > 0 ? Math.max(1, nextAtMs - Date.now()) : net
    line.quietUntil = performance.now() + Math.min(net, dueMs, limitedMs > 0 ? limitedMs : net)
    return true
  }

  /** Others were here before, or nothing can be there that was not heard of. */
  function isVainIn({ waiters, quietUntil, isOnlyFull }: QueueState): boolean {
    return !isOnlyFull && (waiters.size > 0 || quietUntil > performance.now())
  }

  function leave(line: QueueState, waiter: PendingTake): void {
    if (line.waiters.delete(waiter)) waiting--
  }

  function hand(line: QueueState, waiter: PendingTake, taken: TakeResult): void {
    leave(line, waiter)
    if (waiter.isGone) giveBack(waiter.request, taken.jobs)
    else waiter.finish(taken)
  }

  /** Not to the next in line: it may have asked for fewer, or for longer. */
  function giveBack(
    {
      queue,
      concurrencyLimit: share,
      capacity: places,
    }: Pick<TakeRequest, 'queue' | 'concurrencyLimit' | 'capacity'>,
    jobs: TakeResult['jobs'],
  ): void {
    if (jobs.length === 0) return
    places?.give(jobs.length)
    const items = jobs.map((held) => ({ lease: held, outcome: { outcome: 'release' as const } }))
    // What cannot be given back now stalls, and comes back so.
    work.settle(queue, items, undefined, share).catch(() => {})
  }

  function standInLine(line: QueueState, request: TakeRequest, waitMs: number, signal: AbortSignal) {
    return new Promise<TakeResult>((resolve) => {
      const waiter: PendingTake = {
        request,
        isGone: false,
        finish(taken) {
          clearTimeout(timeout)
          signal.removeEventListener('abort', goAway)
          resolve(taken)
        },
      }
      const goAway = () => {
        sendHome(line, waiter)
        if (!line.isTaking) wait(line)
      }
      const timeout = waitMs === Number.POSITIVE_INFINITY ? undefined : setTimeout(goAway, waitMs)
      signal.addEventListener('abort', goAway, { once: true })
      line.waiters.add(waiter)
      waiting++
      if (!line.isTaking) wait(line)
    })
  }

  /** With nothing; what is taken for it in this very moment goes back. */
  function sendHome(line: QueueState, waiter: PendingTake): void {
    waiter.isGone = true
    leave(line, waiter)
    waiter.finish(EMPTY_TAKE)
  }

  return {
    async take(request, waitMs, signal, seen) {
      const { queue } = request
      const line = lines.get(queue)
      const isVain = line !== undefined && isVainIn(line)
      const heard = seen?.version ?? line?.heard ?? NOTHING_HEARD
      const taken = seen?.taken ?? (isVain ? EMPTY_TAKE : await takeWithinCapacity(work, request))
      if (signal.aborted) {
        giveBack(request, taken.jobs)
        return EMPTY_TAKE
      }
      if (taken.jobs.length > 0 || taken.isLimitRevised) return taken
      if (line && (seen || !isVain)) learn(line, { taken, version: heard })
      if (waitMs === 0 || isClosing) return taken
      return standInLine(lines.get(queue) ?? open(queue), request, waitMs, signal)
    },
    hasNoWaiters: (queue) => (lines.get(queue)?.waiters.size ?? 0) === 0,
    notify(queue) {
      const line = lines.get(queue)
      if (line) stir(line)
    },
    version: (queue) => lines.get(queue)?.heard ?? NOTHING_HEARD,
    giveBack,
    isClosing: () => isClosing,
    waiterCount: () => waiting,
    close() {
      isClosing = true
      for (const line of [...lines.values()]) {
        for (const waiter of [...line.waiters]) sendHome(line, waiter)
        line.end()
      }
    },
  }
}
