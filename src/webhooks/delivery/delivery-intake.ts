/**
 * Takes jobs for a delivery worker, with at most one take at a time.
 *
 *   idle    → taking if the worker has capacity, → paused while the endpoint breaker pauses deliveries
 *   taking  → idle with jobs or after an interruption, → paused after an error or when the subscription was changed
 *   paused  → idle when the timer fires
 *   stopped final
 */
import type { TakeResult } from '../../dispatch/leased-job.ts'

export interface DeliveryIntake {
  /** Takes jobs if the worker has capacity and no take is in progress. */
  fill(): void
  isTaking(): boolean
  /** Ends the take that waits for jobs. */
  interrupt(): void
  stop(): void
}

export interface DeliveryIntakeDeps {
  /** Waits for jobs until the signal is aborted. */
  take(signal: AbortSignal): Promise<TakeResult>
  hasCapacity(): boolean
  /** How long the endpoint breaker pauses deliveries, ms; 0: it does not. */
  pauseMs(): number
  /** Called with the result of each take, also with one that arrives after `stop`. */
  onTaken(taken: TakeResult): void
}

/** Delay after a failed take, or one that found its subscription changed. */
const RETRY_MS = 1_000

export function createDeliveryIntake({
  take,
  hasCapacity,
  pauseMs,
  onTaken,
}: DeliveryIntakeDeps): DeliveryIntake {
  let taking: AbortController | undefined
  let timer: NodeJS.Timeout | undefined
  let isStopped = false

  function fill(): void {
    if (isStopped) return
    // Read once: a pause that ended between two looks would leave nothing that fills again.
    const ms = pauseMs()
    if (ms > 0) pause(ms)
    else if (!taking && hasCapacity()) void takeJobs()
  }

  async function takeJobs(): Promise<void> {
    taking = new AbortController()
    try {
      const taken = await take(taking.signal)
      onTaken(taken)
      if (taken.isLimitRevised) pause(RETRY_MS)
    } catch {
      pause(RETRY_MS)
    } finally {
      taking = undefined
    }
    if (timer === undefined) fill()
  }

  function pause(ms: number): void {
    if (isStopped) return
    clearTimeout(timer)
    timer = setTimeout(() => {
      timer = undefined
      fill()
    }, ms)
  }

  return {
    fill,
    isTaking: () => taking !== undefined,
    interrupt: () => taking?.abort(),
    stop() {
      isStopped = true
      clearTimeout(timer)
      taking?.abort()
    },
  }
}
