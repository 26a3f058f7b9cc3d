/**
 * Bounds what an endpoint may send around the body of its response: informational responses, and the bytes of heads,
 * chunk extensions and trailers. undici accepts any amount of them, and parsing an endless stream holds the event loop.
 */
import type { Socket } from 'node:net'

export interface ResponseLimits {
  /** An informational (1xx) response has arrived. */
  countInformational(): void
  /** Bytes of the body have arrived. */
  countBody(bytes: number): void
  /** The response has ended. */
  stop(): void
}

export class ExcessiveResponseError extends Error {}

const INFORMATIONAL_MAX = 10
/** Bytes outside the body. Each byte of a body may be a chunk of its own, which takes six bytes. */
const OVERHEAD_BYTES = 65_536
const OVERHEAD_PER_BODY_BYTE = 8

/**
 * For one response on `socket`, which may have carried others before. Call it once the request is being sent: the parser
 * has to read the socket before this does. `onExcess` is called once.
 */
export function limitResponse(socket: Socket, onExcess: (error: Error) => void): ResponseLimits {
  const bytesBefore = socket.bytesRead
  let informational = 0
  let bodyBytes = 0

  function exceed(what: string): void {
    stop()
    onExcess(new ExcessiveResponseError(what))
  }

  function checkOverhead(): void {
    const overhead = socket.bytesRead - bytesBefore - bodyBytes
    if (overhead > OVERHEAD_BYTES + OVERHEAD_PER_BODY_BYTE * bodyBytes)
      exceed('the response has too many bytes outside its body')
  }

  function stop(): void {
    socket.off('readable', checkOverhead)
  }

  socket.on('readable', checkOverhead)
  return {
    countInformational() {
      informational++
      if (informational > INFORMATIONAL_MAX) exceed('the endpoint sends too many informational responses')
    },
    countBody(bytes) {
      bodyBytes += bytes
    },
    stop,
  }
}
