/**
 * Server-sent events (`text/event-stream`, WHATWG HTML §9.2), opened with `reply.openEventStream()`. One timer sends the
 * heartbeats of all streams. A client that keeps more than `maxBufferedBytes` waiting for a second is disconnected. On
 * shutdown every stream ends cleanly, and its client reconnects, to another replica of the service if there is one. So does
 * the stream of a key that no longer permits it.
 */
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import fp from 'fastify-plugin'
import type { PacedTurns } from '../paced-turns.ts'
import type { ClientSockets } from './clients/client-sockets.ts'
import { LARGE_BYTES, type SendBudget } from './clients/send-budget.ts'
import type { ClientWatch } from './clients/waits.ts'

export interface EventStream {
  /** Writes a complete frame. Does nothing once the stream is closed. */
  send(frame: string): void
  /** Resolves when the socket can take more, or has closed; after large frames, when it is the turn of the stream. */
  drained(): Promise<void>
  end(): void
  readonly isClosed: boolean
  /** Calls the listener once, when the stream closes, or immediately if it is closed already. */
  onClose(listener: () => void): void
}

declare module 'fastify' {
  interface FastifyReply {
    /** Takes over the response and sends its status and headers. Throws if the key no longer permits it. */
    openEventStream(wait: ClientWatch): EventStream
  }
}

export interface EventStreamOptions {
  heartbeatMs: number
  /** How many bytes may wait for one client. */
  maxBufferedBytes: number
  sockets: Pick<ClientSockets, 'of'>
  budget: Pick<SendBudget, 'hold'>
  turns: Pick<PacedTurns, 'perBytes'>
}

/** How long a client may exceed the cap: a burst fills the buffer of a fast client too. Frames are shared, so this is cheap. */
const GRACE_MS = 1_000
/** How long a client that lost its stream should wait before it reconnects. */
const RETRY_MS = 2_000

export const eventStreamPlugin = fp<EventStreamOptions>(async (app, options) => {
  const { heartbeatMs, maxBufferedBytes, sockets, budget, turns } = options
  const open = new Set<ServerResponse>()
  /** The timers that disconnect slow clients when the grace period ends. */
  const graceTimers = new Map<ServerResponse, NodeJS.Timeout>()
  const heartbeat = setInterval(() => {
    // A comment frame keeps proxies from closing the connection and detects clients that have gone.
    for (const response of open) write(response, ':\n\n')
  }, heartbeatMs)

  function write(response: ServerResponse, text: string): void {
    if (response.writableEnded || response.destroyed) return
    if (text.length < LARGE_BYTES) response.write(text)
    else response.write(text, budget.hold(sockets.of(response.req.socket), text.length))
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

  app.decorateReply('openEventStream', function (this: FastifyReply, wait: ClientWatch): EventStream {
    wait.canDeliver()
    const refusal = wait.refusal()
    if (refusal) throw refusal
    this.hijack()
    const response = this.raw
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // nginx buffers proxied responses unless this header disables it.
      'x-accel-buffering': 'no',
      'x-request-id': this.request.id,
      'x-content-type-options': 'nosniff',
    })
    response.on('error', () => response.destroy())
    open.add(response)
    const closing = createClosing(response, wait.signal)
    closing.onClose(() => forget(response))
    write(response, `retry: ${RETRY_MS}\n\n`)
    const pace = turns.perBytes()
    let turn: Promise<void> | undefined
    return {
      send(frame) {
        // Checked for each frame: a key may have been revoked a moment ago.
        if (!wait.canDeliver()) return
        write(response, frame)
        turn = pace(frame.length) ?? turn
      },
      async drained() {
        await drained(response, closing)
        await turn
      },
      end: () => void response.end(),
      get isClosed() {
        return response.writableEnded || closing.hasClosed()
      },
      onClose: closing.onClose,
    }
  })

  app.addHook('preClose', async () => {
    clearInterval(heartbeat)
    for (const response of open) response.end()
  })
  app.addHook('onClose', async () => clearInterval(heartbeat))
})

interface Closing {
  hasClosed(): boolean
  /** Calls the listener once, also if the stream has closed already. */
  onClose(listener: () => void): void
}

/** A response that is queued behind another one emits no 'close' when its connection closes; `signal` is aborted then. */
function createClosing(response: ServerResponse, signal: AbortSignal): Closing {
  const listeners = new Set<() => void>()
  let hasClosed = false
  const close = () => {
    hasClosed = true
    for (const listener of listeners) listener()
    listeners.clear()
  }
  const abort = () => {
    response.end()
    close()
  }
  response.once('close', close)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  else if (response.destroyed) close()
  return {
    hasClosed: () => hasClosed,
    onClose(listener) {
      if (hasClosed) listener()
      else listeners.add(listener)
    },
  }
}

function drained(response: ServerResponse, { hasClosed, onClose }: Closing): Promise<void> {
  return new Promise((resolve) => {
    if (!response.writableNeedDrain || hasClosed()) return resolve()
    response.once('drain', resolve)
    onClose(resolve)
  })
}
