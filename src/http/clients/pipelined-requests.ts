/**
 * Requests that clients pipeline: sent before the answer to the one before has arrived. One read of a connection may bring
 * hundreds of them, and to begin them all at once would hold up every other client. So they are begun a few per turn of the
 * event loop, and a client that pipelines more than MAX_PIPELINED_REQUESTS is dropped.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { ClientSocket, ClientSockets } from './client-sockets.ts'

/** Begun per turn of the event loop: about a millisecond of work. */
const PER_TURN = 16

interface PipelinedRequest {
  client: ClientSocket
  request: IncomingMessage
  response: ServerResponse
}

/** `maxPipelined`: most requests of one connection whose answer waits for another one. */
export function paceRequests(
  sockets: ClientSockets,
  maxPipelined: number,
  handle: RequestListener,
): RequestListener {
  const waiting: PipelinedRequest[] = []

  function beginSome(): void {
    // Removed before they begin, so that a queue that never empties keeps none that has ended.
    for (const { client, request, response } of waiting.splice(0, PER_TURN)) {
      if (!client.isDropped && !client.socket.destroyed) handle(request, response)
    }
    if (waiting.length > 0) setImmediate(beginSome)
  }

  return (request, response) => {
    // The only request of its connection, as of every client that does not pipeline.
    if (response.socket !== null) return handle(request, response)
    const client = sockets.of(request.socket)
    if (client.isDropped || client.socket.destroyed) return
    if (client.queued >= maxPipelined) return sockets.disconnect(client, 'pipelined')
    client.queued++
    response.once('finish', () => client.queued--)
    waiting.push({ client, request, response })
    if (waiting.length === 1) setImmediate(beginSome)
  }
}
