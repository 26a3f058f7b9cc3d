/**
 * The shutdown order of the process: whatever lives long registers its end on the line after it is created, and the ends
 * run in reverse. States: running → draining (unready, still serving) → stopping (waiting requests are resolved) → closed.
 */
export interface Lifecycle {
  /** Registers what must end before the listener closes: a thing on which requests wait. */
  onStop(stop: () => Promise<void> | void): void
  /** Registers what ends after the last request. */
  onClose(close: () => Promise<void> | void): void
  drain(): void
  isDraining(): boolean
  /**
   * Calls every stop, newest first, without waiting in between: a webhook that is slow to end must not hold up the
   * requests that wait for a job. Resolves when all have ended.
   */
  stop(): Promise<void>
  /** Calls every close, newest first, one after the other; one that fails does not keep the others open. */
  close(): Promise<void>
}

type End = () => Promise<void> | void

export function createLifecycle(): Lifecycle {
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
      throwFirst(await settleAll(stops.splice(0)))
    },
    async close() {
      const results: PromiseSettledResult<void>[] = []
      for (const end of closes.splice(0)) results.push(...(await settleAll([end])))
      throwFirst(results)
    },
  }
}

function settleAll(ends: End[]): Promise<PromiseSettledResult<void>[]> {
  return Promise.allSettled(ends.map(async (end) => end()))
}

function throwFirst(results: PromiseSettledResult<void>[]): void {
  const failed = results.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
}
