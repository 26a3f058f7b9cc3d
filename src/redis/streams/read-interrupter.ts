/**
 * Ends the blocking read of the `events` connection from another one, by CLIENT UNBLOCK, when the set of streams has
 * changed. Streams that are wanted at about the same time end it once.
 */
import type { RedisConnections } from '../connection/connections.ts'

export interface ReadInterrupter {
  /** The id of the reading connection; `undefined`: there is none, and nothing can be interrupted. */
  identify(clientId: number | undefined): void
  /** Ends the read in a moment, if that is still wanted then. */
  soon(): void
  /** Whether reads can be interrupted at all. */
  readonly works: boolean
  close(): void
}

export interface ReadInterrupterDeps {
  connections: RedisConnections
  count(label: string, commands: number): void
  /** A read is under way that does not hold all that is wanted. */
  isWanted(): boolean
}

const GATHER_MS = 5

export function createReadInterrupter({
  connections,
  count,
  isWanted,
}: ReadInterrupterDeps): ReadInterrupter {
  let clientId: number | undefined
  let isForbidden = false
  let timer: NodeJS.Timeout | undefined

  function soon(): void {
    timer ??= setTimeout(interrupt, GATHER_MS)
  }

  function interrupt(): void {
    timer = undefined
    if (clientId === undefined || isForbidden || !isWanted()) return
    count('unblockEvents', 1)
    connections.admin.client.client('UNBLOCK', clientId).then(
      // Nothing ended: the read had not reached Redis yet.
      (ended) => {
        if (ended === 0) soon()
      },
      (error: Error) => {
        isForbidden = /^(NOPERM|ERR)\b/.test(error.message)
        soon()
      },
    )
  }

  return {
    identify(id) {
      clientId = id
      isForbidden = false
    },
    soon,
    get works() {
      return clientId !== undefined && !isForbidden
    },
    close() {
      clearTimeout(timer)
    },
  }
}
