/**
 * Paces the work on large values. Rendering or writing a MiB holds the event loop for some ms, and many clients may ask for
 * one at once: so one piece of such work runs at a time, and three times as long is left for everything else.
 */

export interface PacedTurns {
  /**
   * Resolves when the caller may do its work: what it does before it next awaits anything. Turns come in the order in which
   * they were asked for.
   */
  take(): Promise<void>
  /** For a loop over large values: call the result with the bytes of each. It waits for a turn each PACED_BYTES. */
  perBytes(): (bytes: number) => Promise<void> | undefined
  /** Grants all turns at once, and those to come. */
  close(): void
}

/** Smaller work needs no turn: it takes less than about a ms. */
export const PACED_BYTES = 262_144
/** How long the event loop serves the rest after a turn, relative to the turn. */
const PAUSES_PER_TURN = 3
/** A machine that was suspended during a turn must not pause for as long again. */
const PAUSE_MAX_MS = 250

export function createPacedTurns(): PacedTurns {
  const waiting: (() => void)[] = []
  let isPaused = false
  let isClosed = false
  let timer: NodeJS.Timeout | undefined

  function grantNext(): void {
    const grant = waiting.shift()
    isPaused = grant !== undefined
    if (!grant) return
    const grantedAtMs = performance.now()
    grant()
    // The caller goes on before the event loop does.
    setImmediate(() => {
      const pauseMs = Math.min(PAUSE_MAX_MS, (performance.now() - grantedAtMs) * PAUSES_PER_TURN)
      timer = setTimeout(grantNext, isClosed ? 0 : Math.max(1, pauseMs))
    })
  }

  function take(): Promise<void> {
    if (isClosed) return Promise.resolve()
    return new Promise((resolve) => {
      waiting.push(resolve)
      if (!isPaused) grantNext()
    })
  }

  return {
    take,
    perBytes() {
      let sinceTurn = 0
      return (bytes) => {
        sinceTurn += bytes
        if (sinceTurn < PACED_BYTES) return undefined
        sinceTurn = 0
        return take()
      }
    },
    close() {
      isClosed = true
      clearTimeout(timer)
      for (const grant of waiting.splice(0)) grant()
    },
  }
}
