/**
 * Hands the bytes of an endpoint to undici in small pieces. undici notices an oversized head after each header and then
 * still parses the rest of the piece, with an error for each further header: 64 KiB of short headers took 100 ms.
 */
import type { Socket } from 'node:net'

/** Most bytes of one read. */
export const READ_BYTES = 4_096

/** Replaces `read`; a destroyed socket has nothing more to read. */
export function readInSmallPieces(socket: Socket): void {
  const read = socket.read.bind(socket)
  socket.read = (size?: number) => {
    if (socket.destroyed) return null
    return read(size ?? (socket.readableLength > READ_BYTES ? READ_BYTES : undefined))
  }
}
