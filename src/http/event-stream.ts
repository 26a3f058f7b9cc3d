/**
 * Answers that go on: `text/event-stream` (WHATWG HTML, §9.2), opened by `reply.openEventStream()`. One heartbeat for all;
 * a client that does not read is dropped when more than the cap has waited for it for a second; at the end of the service each is ended
 * cleanly, and the clients come back by themselves, elsewhere.
 */
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import fp from 'fastify-plugin'
import type { Access } from '../auth/access.ts'

export interface EventStream {
  send(frame: string): void
  /** Resolves when the client has taken what was sent, or has gone. */
  drained(): Promise<void>
  end(): void
  readonly isClosed: boolean
  /** Called once, at once when it is closed already. */
  onClose(listener: () => void): void
}

declare module 'fastify' {
  interface FastifyReply {
    /** Takes the answer over: status and headers go out now. */
    openEventStream(): EventStream
  }
}

export interface EventStreamOptions {
  heartbeatMs: number
  /** Most that may wait for one client, bytes. */
  maxBufferedBytes: number
}

/** A burst may exceed the cap for a client that reads well, too. (What waits is shared: a frame is made once for all.) */
const GRACE_MS = 1_000
/** When a client that lost its stream should come back, ms. */
const RETRY_MS = 2_000

export const eventStreamPlugin = fp<EventStreamOptions>(async (app, { heartbeatMs, maxBufferedBytes }) => {
  const open = new Map<ServerResponse, Access>()
  const slow = new WeakSet<ServerResponse>()
  const heartbeat = setInterval(() => {
    for (const [response, access] of open) {
      // A comment: proxies keep the connection, and a client that has gone is found out. A key that is revoked ends it.
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
    if (slow.has(response)) return
    slow.add(response)
    setTimeout(() => {
      slow.delete(response)
      if (response.writableLength > maxBufferedBytes) response.destroy()
    }, GRACE_MS).unref()
  }

  app.decorateReply('openEventStream', function (this: FastifyReply): EventStream {
    this.hijack()
    const response = this.raw
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // nginx holds back what it proxies, unless it is told not to.
      'x-accel-buffering': 'no',
      'x-request-id': this.request.id,
    })
    response.on('error', () => response.destroy())
    open.set(response, this.request.access)
    response.once('close', () => open.delete(response))
    if (response.destroyed) open.delete(response)
    write(response, `retry: ${RETRY_MS}\n\n`)
    return {
      send: (frame) => write(response, frame),
      drained: () =>
        new Promise((resolve) => {
          if (!response.writableNeedDrain || response.destroyed) return resolve()
          const done = () => {
            response.off('drain', done)
            response.off('close', done)
            resolve()
          }
          response.on('drain', done)
          response.on('close', done)
        }),
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
