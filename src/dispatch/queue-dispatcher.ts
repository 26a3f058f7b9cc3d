/**
 * The pending takes of one queue, served first come, first served, with one Redis command at a time.
 *
 *   idle     no pending take: the state is kept for a while, then the dispatcher of the queue is closed
 *   waiting  → serving on an event, when a delayed job is due, when a rate limit ends, or at the fallback interval
 *   serving  takes for each pending take in turn, until the queue has nothing and nothing has happened to it meanwhile
 *   closed   all pending takes have been resolved without jobs
 */
import { asSluiceError, errorTable } from '../errors.ts'
import type { QueueEvent, QueueEvents } from '../events/queue-events.ts'
import type { RedisClock } from '../redis/redis-clock.ts'
import { takeWithinCapacity } from './capacity.ts'
import {
  afterEmptyTake,
  afterEvent,
  afterFailedTake,
  afterNotification,
  type EmptyTake,
  hasChangedSince,
  INITIAL_DISPATCH_STATE,
  mustQueue,
  nextServeMs,
  type QueueDispatchState,
  type QueueVersion,
} from './dispatch-state.ts'
import type { LeasedJob, TakeRequest, TakeResult } from './leased-job.ts'
import { createPendingTakes, type PendingTake, type PendingTakes } from './pending-takes.ts'
import { subscribeWhenAvailable } from './queue-subscription.ts'
import type { StalledRecovery } from './stalled-recovery.ts'
import { EMPTY_TAKE } from './take-reply.ts'
import type { WorkerCommands } from './worker-commands.ts'

export interface QueueDispatcher {
  version(): QueueVersion
  pendingCount(): number
  /** Whether a new take has to wait: other takes are pending, or it would find nothing. */
  mustQueue(): boolean
  /** A job may be ready. */
  notify(): void
  /** Reports a take without jobs that the caller sent itself. */
  noteEmptyTake(take: EmptyTake): void
  /**
   * Resolves with jobs, or without when the time is up, the signal is aborted or the worker's limit was revised. Rejects with
   * an error that a repetition does not remove.
   */
  addPendingTake(request: TakeRequest, waitMs: number, signal: AbortSignal): Promise<TakeResult>
  /** Resolves every pending take without jobs. */
  close(): void
}

export interface QueueDispatcherDeps {
  commands: Pick<WorkerCommands, 'take'>
  events: Pick<QueueEvents, 'subscribe'>
  stalled: Pick<StalledRecovery, 'watch' | 'noteActive'>
  clock: Pick<RedisClock, 'nowMs'>
  /** Called with jobs that were taken for a worker that has left meanwhile. */
  giveBack(request: TakeRequest, jobs: LeasedJob[]): void
  /** How long to keep a queue without pending takes, ms; 0: close it now. */
  lingerMs(): number
  /** A pending take was added (1) or removed (-1). */
  onPending(change: 1 | -1): void
  /** Called once. */
  onClose(): void
}

export function createQueueDispatcher(queue: string, deps: QueueDispatcherDeps): QueueDispatcher {
  const { commands, events, stalled, clock, giveBack, lingerMs, onPending, onClose } = deps
  const pending = createPendingTakes({ giveBack, onChange: onPendingChange })
  let state = INITIAL_DISPATCH_STATE
  let isServing = false
  let isClosed = false
  let timer: NodeJS.Timeout | undefined
  const endWatch = stalled.watch(queue)
  // An event between the caller's take and the subscription was missed, so the subscription begins with a notification.
  const subscription = subscribeWhenAvailable(events, queue, { onEvent, onGap: notify }, notify)

  function onPendingChange(change: 1 | -1): void {
    onPending(change)
    if (!isServing) schedule()
  }

  function onEvent(event: QueueEvent): void {
    if (event.event === 'active') stalled.noteActive(queue)
    const next = afterEvent(state, event, performance.now(), clock.nowMs())
    if (next !== state) update(next)
  }

  function notify(): void {
    update(afterNotification(state))
  }

  function update(next: QueueDispatchState): void {
    const isSooner = next.quietUntilMs < state.quietUntilMs
    state = next
    if (next.quietUntilMs === 0) void serve()
    else if (isSooner) schedule()
  }

  function schedule(): void {
    if (isClosed) return
    clearTimeout(timer)
    if (pending.count() > 0) {
      timer = setTimeout(() => void serve(), nextServeMs(state, performance.now()))
      return
    }
    const ms = lingerMs()
    if (ms === 0) end()
    else timer = setTimeout(end, ms)
  }

  async function serve(): Promise<void> {
    if (isServing || pending.count() === 0) return
    isServing = true
    try {
      while (await serveOnce()) {
        // An event arrived meanwhile, so the takes may have missed a job.
      }
    } catch {
      state = afterFailedTake(state, performance.now())
    } finally {
      isServing = false
      schedule()
    }
  }

  /** Resolves with whether the queue may have jobs for the takes that still wait. Rejects with a temporary error. */
  async function serveOnce(): Promise<boolean> {
    const { version } = state
    let taken = EMPTY_TAKE
    for (const take of pending) {
      taken = await takeFor(commands, pending, take)
      if (taken.jobs.length > 0 || taken.isLimitRevised) pending.hand(take, taken)
      else if (!taken.isLimitReached) break
    }
    if (pending.count() === 0) return false
    noteEmptyTake({ taken, version })
    return taken.mayHaveMore || hasChangedSince(state, version)
  }

  function noteEmptyTake(emptyTake: EmptyTake): void {
    state = afterEmptyTake(state, emptyTake, subscription.isLive(), performance.now(), clock.nowMs())
  }

  function end(): void {
    isClosed = true
    clearTimeout(timer)
    onClose()
    endWatch()
    subscription.end()
  }

  return {
    version: () => state.version,
    pendingCount: pending.count,
    mustQueue: () => mustQueue(state, pending.count(), performance.now()),
    notify,
    noteEmptyTake,
    addPendingTake: pending.add,
    close() {
      isClosed = true
      pending.endAll()
      end()
    },
  }
}

/** A failure may be about the worker alone, such as a damaged concurrency limit, so the queue may have jobs for others. */
async function takeFor(
  commands: QueueDispatcherDeps['commands'],
  pending: PendingTakes,
  take: PendingTake,
): Promise<TakeResult> {
  try {
    return await takeWithinCapacity(commands, take.request)
  } catch (error) {
    if (errorTable[asSluiceError(error).code].retryable) throw error
    pending.fail(take, error)
    return { ...EMPTY_TAKE, isLimitReached: true }
  }
}
