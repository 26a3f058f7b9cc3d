/**
 * Server-sent events (`text/event-stream`, WHATWG HTML §9.2), opened with `reply.openEventStream()`. One timer sends the
 * heartbeats of all streams. A client that keeps more than `maxBufferedBytes` waiting for a second is disconnected. On
 * shutdown every stream ends cleanly, and its client reconnects, to another replica of the service if there is one.
 */
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import fp from 'fastify-plugin'
import type { Access } from '../auth/access.ts'

export interface EventStream {
  /** Writes a complete frame. Does nothing once the stream is closed. */
  send(frame: string): void
  /** Resolves when the socket can take more, or has closed. */
  drained(): Promise<void>
  end(): void
  readonly isClosed: boolean
  /** Calls the listener once, when the stream closes, or immediately if it is closed already. */
  onClose(listener: () => void): void
}

declare module 'fastify' {
  interface FastifyReply {
    /** Takes over the response and sends its status and headers. */
    openEventStream(): EventStream
  }
}

export interface EventStreamOptions {
  heartbeatMs: number
  /** How many bytes may wait for one client. */
  maxBufferedBytes: number
}

/** How long a client may exceed the cap: a burst fills the buffer of a fast client too. Frames are shared, so this is cheap. */
const GRACE_MS = 1_000
/** How long a client that lost its stream should wait before it reconnects. */
const RETRY_MS = 2_000

export const eventStreamPlugin = fp<EventStreamOptions>(async (app, { heartbeatMs, maxBufferedBytes }) => {
  const open = new Map<ServerResponse, Access>()
  /** The timers that disconnect slow clients when the grace period ends. */
  const graceTimers = new Map<ServerResponse, NodeJS.Timeout>()
  const heartbeat = setInterval(() => {
    for (const [response, access] of open) {
      // A comment frame keeps proxies from closing the connection and detects clients that have gone.
      // The streams of a revoked key end here.
      if (access.isLive()) write(response, ':\n\n')
      else response.end()
    }
  }, heartbeatMs)

  function write(response: ServerResponse, text: string): void {
    if (response.writableEnded || response.destroyed) return
    response.write(text)
    if (response.writableLength > maxBufferedBytes) watch(response)
  }

  function watch(response: ServerResponse): void {
    if (graceTimers.has(response)) return
    const disconnectIfSlow = () => {
      graceTimers.delete(response)
      if (response.writableLength > maxBufferedBytes) response.destroy()
    }
    graceTimers.set(response, setTimeout(disconnectIfSlow, GRACE_MS))
  }

  function forget(response: ServerResponse): void {
    open.delete(response)
    clearTimeout(graceTimers.get(response))
    graceTimers.delete(response)
  }

  app.decorateReply('openEventStream', function (this: FastifyReply): EventStream {
    this.hijack()
    const response = this.raw
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // nginx buffers proxied responses unless this header disables it.
      'x-accel-buffering': 'no',
      'x-request-id': this.request.id,
    })
    response.on('error', () => response.destroy())
    open.set(response, this.request.access)
    response.once('close', () => forget(response))
    if (response.destroyed) forget(response)
    write(response, `retry: ${RETRY_MS}\n\n`)
    return {
      send: (frame) => write(response, frame),
      drained: () => drained(response),
      end: () => void response.end(),
      get isClosed() {
        return response.writableEnded || response.destroyed
      },
      onClose(listener) {
        if (response.destroyed) listener()
        else response.once('close', listener)
      },
    }
  })

  app.addHook('preClose', async () => {
    clearInterval(heartbeat)
    for (const response of open.keys()) response.end()
  })
  app.addHook('onClose', async () => clearInterval(heartbeat))
})

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (!response.writableNeedDrain || response.destroyed) return resolve()
    const done = () => {
      response.off('drain', done)
      response.off('close', done)
      resolve()
    }
    response.on('drain', done)
    response.on('close', done)
  })
}
