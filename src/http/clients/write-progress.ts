/**
 * Whether a client takes the bytes that were sent to it. `socket.bytesWritten` counts bytes that Node has buffered, so
 * progress is that fewer bytes wait in the handle, or that a write has completed and the next one has begun.
 */
import type { Socket } from 'node:net'

export interface Progress {
  /** When the client last took a byte, in the time of `performance.now()`; `undefined`: nothing waits for it. */
  sinceMs: number | undefined
  /** Bytes of the completed writes, when last seen. */
  completedBytes: number
  /** Bytes of the write under way that the kernel has not accepted, when last seen. */
  handleBytes: number
}

/** What is read of a socket. Node documents neither `_handle` nor its queue, and uses both for `socket.setTimeout`. */
type WritingSocket = Pick<Socket, 'writableLength' | 'bytesWritten'> & {
  readonly _handle?: { readonly writeQueueSize?: number } | null
}

export function startProgress(): Progress {
  return { sinceMs: undefined, completedBytes: 0, handleBytes: 0 }
}

/** How long the client has taken nothing, ms; 0 if nothing waits for it, or if it has taken a byte since the last call. */
export function stalledMs(progress: Progress, socket: WritingSocket, nowMs: number): number {
  const { writableLength } = socket
  if (writableLength === 0) {
    progress.sinceMs = undefined
    return 0
  }
  const { bytesWritten, _handle } = socket
  const completedBytes = bytesWritten - writableLength
  const handleBytes = _handle?.writeQueueSize ?? 0
  const isStalled =
    progress.sinceMs !== undefined &&
    progress.completedBytes === completedBytes &&
    progress.handleBytes === handleBytes
  if (isStalled) return nowMs - progress.sinceMs!
  progress.sinceMs = nowMs
  progress.completedBytes = completedBytes
  progress.handleBytes = handleBytes
  return 0
}
