/**
 * The worst delivery lag of the last 10 to 20 s: the maximum over the current window of 10 s and the one
 * before it.
 */
export interface LagWindow {
  record(ms: number): void
  /** In whole ms; 0 when nothing was recorded. */
  worstMs(): number
}

const WINDOW_MS = 10_000

export function createLagWindow(): LagWindow {
  let startedAt = performance.now()
  let worst = 0
  let previousWorst = 0

  function rotate(): void {
    const age = performance.now() - startedAt
    if (age < WINDOW_MS) return
    previousWorst = age < 2 * WINDOW_MS ? worst : 0
    worst = 0
    startedAt = performance.now()
  }

  return {
    record(ms: number): void {
      rotate()
      if (ms > worst) worst = ms
    },
    worstMs(): number {
      rotate()
      return Math.round(Math.max(worst, previousWorst))
    },
  }
}
