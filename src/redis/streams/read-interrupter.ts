/**
 * Ends the blocking read of the `events` connection when the set of streams changes, by sending CLIENT
 * UNBLOCK on the admin connection. Changes within a few milliseconds cause one interruption.
 */
import type { RedisConnections } from '../connection/connections.ts'

export interface ReadInterrupter {
  /** Sets the client id of the reading connection. While it is `undefined`, reads cannot be interrupted. */
  setClientId(clientId: number | undefined): void
  /** Ends the read within a few ms, unless `shouldInterrupt` is false by then. */
  schedule(): void
  /** Whether reads can be interrupted: the client id is known and Redis has not refused CLIENT UNBLOCK. */
  readonly canInterrupt: boolean
  close(): void
}

export interface ReadInterrupterDeps {
  connections: RedisConnections
  count(label: string, commands: number): void
  /** Whether a read is in progress that does not cover all wanted streams. */
  shouldInterrupt(): boolean
}

const GATHER_MS = 5

export function createReadInterrupter({
  connections,
  count,
  shouldInterrupt,
}: ReadInterrupterDeps): ReadInterrupter {
  let clientId: number | undefined
  let isForbidden = false
  let timer: NodeJS.Timeout | undefined

  function schedule(): void {
    timer ??= setTimeout(interrupt, GATHER_MS)
  }

  function interrupt(): void {
    timer = undefined
    if (clientId === undefined || isForbidden || !shouldInterrupt()) return
    count('unblockEvents', 1)
    connections.admin.client.client('UNBLOCK', clientId).then(
      (unblocked) => {
        // The read had not reached Redis yet.
        if (unblocked === 0) schedule()
      },
      (error: Error) => {
        isForbidden = /^(NOPERM|ERR)\b/.test(error.message)
        schedule()
      },
    )
  }

  return {
    setClientId(id) {
      clientId = id
      isForbidden = false
    },
    schedule,
    get canInterrupt() {
      return clientId !== undefined && !isForbidden
    },
    close() {
      clearTimeout(timer)
    },
  }
}
