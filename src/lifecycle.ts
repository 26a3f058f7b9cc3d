/**
 * The shutdown order: each long-lived part registers its end on the line after it is created, and the ends run in reverse.
 * States: running → draining (not ready, still serving) → stopping (waiting requests are resolved) → closed.
 */
export interface Lifecycle {
  /** Registers the end of a part that requests wait for. It runs before the listener closes. */
  onStop(stop: End): void
  /** Registers an end that runs after the last request. */
  onClose(close: End): void
  drain(): void
  isDraining(): boolean
  /**
   * Calls every stop, newest first, without waiting in between: a slow webhook must not hold up the requests that wait for
   * a job. Resolves when all have ended; rejects with the first error.
   */
  stop(): Promise<void>
  /**
   * Calls every close, newest first, one after the other, including any that is registered meanwhile. Rejects with the
   * first error, after all have been called.
   */
  close(): Promise<void>
}

export type End = () => unknown

export function createLifecycle(): Lifecycle {
  /** Newest first. */
  const stops: End[] = []
  const closes: End[] = []
  let isDraining = false

  return {
    onStop: (stop) => void stops.unshift(stop),
    onClose: (close) => void closes.unshift(close),
    drain() {
      isDraining = true
    },
    isDraining: () => isDraining,
    async stop() {
      const results = await Promise.allSettled(stops.splice(0).map(callAsync))
      throwFirstError(results)
    },
    async close() {
      const results: PromiseSettledResult<unknown>[] = []
      for (let end = closes.shift(); end; end = closes.shift())
        results.push(...(await Promise.allSettled([callAsync(end)])))
      throwFirstError(results)
    },
  }
}

/** An end that throws counts as one that rejects. */
async function callAsync(end: End): Promise<unknown> {
  return end()
}

function throwFirstError(results: PromiseSettledResult<unknown>[]): void {
  const failed = results.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}
