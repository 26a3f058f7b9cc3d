/**
 * Decides which worker gets the next job of a queue. A take is sent to Redis at once, unless other takes are pending or
 * nothing has happened to the queue since it was found empty; then it waits in the queue's own dispatcher. A take that is
 * part of a settle command needs no round trip of its own. It never overtakes pending takes.
 */
import type { QueueEvents } from '../events/queue-events.ts'
import type { RedisClock } from '../redis/redis-clock.ts'
import { reserveCapacity, returnUnused, takeWithinCapacity } from './capacity.ts'
import { type EmptyTake, INITIAL_DISPATCH_STATE } from './dispatch-state.ts'
import type { LeasedJob, TakeRequest, TakeResult } from './leased-job.ts'
import { createQueueDispatcher, type QueueDispatcher } from './queue-dispatcher.ts'
import type { StalledRecovery } from './stalled-recovery.ts'
import { EMPTY_TAKE } from './take-reply.ts'
import type { Settlement, SettleResult, WorkerCommands } from './worker-commands.ts'

export interface Dispatcher {
  /**
   * Resolves with jobs, or without when `waitMs` have passed or the worker's concurrency limit was revised. Once `signal` is
   * aborted, jobs that were taken are given back. Rejects with a SluiceError.
   */
  take(request: TakeRequest, waitMs: number, signal: AbortSignal): Promise<TakeResult>
  /**
   * Settles jobs of one queue and takes `next` in the same command, unless takes are pending or `next` is of another queue.
   * With `wait`, a take that was not in the command, found nothing or may have more continues as `take` does; without, it
   * ends. The concurrency limit of `next` applies to the settled jobs as well. Rejects with a SluiceError if the command
   * failed.
   */
  settleAndTake(
    queue: string,
    items: Settlement[],
    next?: TakeRequest,
    wait?: TakeWait,
  ): Promise<SettledAndTaking>
  /** Jobs were enqueued in this process. Serves pending takes before the events of the jobs arrive. */
  notify(queue: string): void
  /** Releases jobs that cannot reach their worker. If that fails, they stall and come back later. */
  giveBack(request: Pick<TakeRequest, 'queue' | 'concurrencyLimit' | 'capacity'>, jobs: LeasedJob[]): void
  pendingCount(): number
  isClosing(): boolean
  /** Resolves every pending take without jobs, and from now on no take waits. */
  close(): void
}

export interface TakeWait {
  waitMs: number
  signal: AbortSignal
}

export interface SettledAndTaking {
  refused: SettleResult['refused']
  /** Never rejects: the jobs are settled, so a failed take resolves without jobs. */
  taken: Promise<TakeResult>
}

/** A queue without pending takes is kept this long, for workers that poll. */
const LINGER_MS = 60_000
const LINGERING_QUEUES_MAX = 1_000

export function createDispatcher(
  commands: Pick<WorkerCommands, 'take' | 'settle'>,
  events: Pick<QueueEvents, 'subscribe' | 'noteStored'>,
  stalled: Pick<StalledRecovery, 'watch' | 'noteActive'>,
  clock: Pick<RedisClock, 'nowMs'>,
): Dispatcher {
  const giveBack = createGiveBack(commands)
  const queues = new Map<string, QueueDispatcher>()
  let isClosing = false
  let pendingCount = 0

  function openQueue(queue: string): QueueDispatcher {
    const opened = createQueueDispatcher(queue, {
      commands,
      events,
      stalled,
      clock,
      giveBack,
      lingerMs: () => (queues.size > LINGERING_QUEUES_MAX || isClosing ? 0 : LINGER_MS),
      onPending: (change) => {
        pendingCount += change
      },
      onClose: () => queues.delete(queue),
    })
    queues.set(queue, opened)
    return opened
  }

  async function take(request: TakeRequest, waitMs: number, signal: AbortSignal): Promise<TakeResult> {
    const known = queues.get(request.queue)
    if (known?.mustQueue()) return conclude(request, EMPTY_TAKE, { waitMs, signal })
    const version = versionOf(known)
    const taken = await takeWithinCapacity(commands, request)
    if (isEmpty(taken)) known?.noteEmptyTake({ taken, version })
    return conclude(request, taken, { waitMs, signal })
  }

  async function settleAndTake(
    queue: string,
    items: Settlement[],
    next?: TakeRequest,
    wait?: TakeWait,
  ): Promise<SettledAndTaking> {
    const known = queues.get(queue)
    const version = versionOf(known)
    const canCombine = next?.queue === queue && (known?.pendingCount() ?? 0) === 0
    const combined = canCombine ? reserveCapacity(next) : undefined
    let taken: TakeResult | undefined
    let refused: SettleResult['refused']
    try {
      ;({ refused, taken } = await commands.settle(queue, items, combined, next?.concurrencyLimit))
    } finally {
      if (combined) returnUnused(combined, taken?.jobs.length ?? 0)
    }
    if (taken && isEmpty(taken)) known?.noteEmptyTake({ taken, version })
    if (!next) return { refused, taken: Promise.resolve(EMPTY_TAKE) }
    if (!wait) return { refused, taken: Promise.resolve(taken ?? EMPTY_TAKE) }
    const taking =
      taken && !taken.mayHaveMore
        ? Promise.resolve(conclude(next, taken, wait))
        : take(next, wait.waitMs, wait.signal)
    return { refused, taken: taking.catch(() => EMPTY_TAKE) }
  }

  /** Returns the jobs, or waits for some if none was taken. */
  function conclude(
    request: TakeRequest,
    taken: TakeResult,
    { waitMs, signal }: TakeWait,
  ): TakeResult | Promise<TakeResult> {
    if (signal.aborted) {
      giveBack(request, taken.jobs)
      return EMPTY_TAKE
    }
    if (!isEmpty(taken) || waitMs === 0 || isClosing) return taken
    return (queues.get(request.queue) ?? openQueue(request.queue)).addPendingTake(request, waitMs, signal)
  }

  return {
    take,
    settleAndTake,
    notify(queue) {
      events.noteStored(queue)
      queues.get(queue)?.notify()
    },
    giveBack,
    pendingCount: () => pendingCount,
    isClosing: () => isClosing,
    close() {
      isClosing = true
      for (const queue of [...queues.values()]) queue.close()
    },
  }
}

/** Releases the jobs to the queue. The next pending take may have asked for fewer jobs or a longer lease. */
function createGiveBack({ settle }: Pick<WorkerCommands, 'settle'>): Dispatcher['giveBack'] {
  return ({ queue, concurrencyLimit, capacity }, jobs) => {
    if (jobs.length === 0) return
    capacity?.give(jobs.length)
    const items = jobs.map((lease): Settlement => ({ lease, outcome: { outcome: 'release' } }))
    settle(queue, items, undefined, concurrencyLimit).catch(() => {})
  }
}

function versionOf(queue: QueueDispatcher | undefined): EmptyTake['version'] {
  return queue?.version() ?? INITIAL_DISPATCH_STATE.version
}

/** The worker has to react to a revised limit, so it counts as a result. */
function isEmpty({ jobs, isLimitRevised }: TakeResult): boolean {
  return jobs.length === 0 && !isLimitRevised
}
