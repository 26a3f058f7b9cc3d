/**
 * Requests whose answer waits for something: a long poll, a take, an event stream. `reply.beginWait()` counts one per
 * connection, per API key and in all; `reply.beginDelivery()` counts nothing. Both watch the client until its answer is
 * sent: a response that is queued behind another one on its connection emits no 'close', so the connection is watched.
 */
import type { FastifyReply } from 'fastify'
import fp from 'fastify-plugin'
import { type Access, anonymous } from '../../auth/access.ts'
import { REPEAT_LATER, SluiceError } from '../../errors.ts'
import type { ClientSocket, ClientSockets } from './client-sockets.ts'
import { createKeyWatches, type WatchedFor, type WatchedRequest } from './key-watches.ts'

export interface ClientWatch {
  /** Aborted once the client cannot receive the answer, or may not: see `refusal`. Never after the answer was sent. */
  readonly signal: AbortSignal
  /** Whether the client can receive the answer now, and its key still permits it. If not, `signal` is aborted. */
  canDeliver(): boolean
  /** Why the key of the request permits it no longer. `undefined`: it does, or the client has gone. */
  refusal(): SluiceError | undefined
  /**
   * Settles as `result`, but rejects with `refusal` once the key no longer permits the request. Never settles once the
   * client has gone. `leave` is called when `result` is no longer needed.
   */
  until<T>(result: Promise<T>, leave: () => void): Promise<T>
}

declare module 'fastify' {
  interface FastifyReply {
    /** Throws TOO_MANY_WAITS or OVERLOADED. */
    beginWait(watchedFor?: WatchedFor): ClientWatch
    /** For an answer that does not wait, but must not be made for a client that has gone. */
    beginDelivery(watchedFor?: WatchedFor): ClientWatch
  }
}

export interface WaitsStats {
  open: number
  max: number
  refused: number
}

export interface WaitsOptions {
  sockets: ClientSockets
  /** Whether the access may be used as it was when the request came. */
  isInForce(access: Access): boolean
  maxPerConnection: number
  maxPerKey: number
  max: number
}

export interface Waits {
  begin(reply: FastifyReply, watchedFor: WatchedFor, isWait: boolean): ClientWatch
  stats(): WaitsStats
  close(): void
}

export function createWaits(options: WaitsOptions): Waits {
  const { sockets, max, maxPerConnection, maxPerKey } = options
  const keyWatches = createKeyWatches(options.isInForce)
  let open = 0
  let refused = 0

  function assertBounds(access: Access, client: ClientSocket): void {
    const refuse = (code: 'TOO_MANY_WAITS' | 'OVERLOADED', detail: string) => {
      refused++
      throw new SluiceError(code, {
        detail: `${detail} ${REPEAT_LATER}`,
        outcome: 'not_executed',
        retryAfterS: 1,
      })
    }
    if (client.waits >= maxPerConnection)
      refuse('TOO_MANY_WAITS', `This connection has ${client.waits} requests that wait. Use more of them.`)
    // Callers without a key cannot be distinguished: only the bound on all requests applies.
    if (access !== anonymous && keyWatches.waitsOf(access) >= maxPerKey)
      refuse('TOO_MANY_WAITS', `The API key ${access.keyId} has ${maxPerKey} requests that wait.`)
    if (open >= max) refuse('OVERLOADED', `${max} requests wait (MAX_WAITS).`)
  }

  function begin(reply: FastifyReply, watchedFor: WatchedFor, isWait: boolean): ClientWatch {
    const { request, raw } = reply
    const { socket } = request.raw
    const client = sockets.of(socket)
    if (isWait) assertBounds(request.access, client)
    const controller = new AbortController()
    let refusal: SluiceError | undefined
    let hasEnded = false
    const watched: WatchedRequest = {
      request,
      watchedFor,
      isWait,
      refuse(reason) {
        refusal ??= reason
        controller.abort()
      },
    }
    const end = () => {
      if (hasEnded) return
      hasEnded = true
      keyWatches.remove(watched)
      client.onClose.delete(leave)
      if (!isWait) return
      client.waits--
      open--
    }
    const leave = () => {
      end()
      controller.abort()
    }
    keyWatches.add(watched)
    client.onClose.add(leave)
    if (isWait) {
      client.waits++
      open++
    }
    // Before Node's own listener, which may close the connection. Node also emits 'finish' when the last write failed.
    raw.prependOnceListener('finish', () => (socket.destroyed || socket.errored ? leave() : end()))
    if (!isReachable(client)) leave()

    const canDeliver = () => {
      if (controller.signal.aborted || raw.writableEnded) return false
      if (isReachable(client)) return keyWatches.isPermitted(watched)
      leave()
      return false
    }
    return {
      signal: controller.signal,
      canDeliver,
      refusal: () => refusal,
      until: (result, giveUp) => settleUntil(result, giveUp, controller.signal, canDeliver, () => refusal),
    }
  }

  return {
    begin,
    stats: () => ({ open, max, refused }),
    close: keyWatches.close,
  }
}

/** False once either side has ended the connection. The socket of an injected request has none of these properties. */
function isReachable({ isDropped, socket: { destroyed, errored, writable } }: ClientSocket): boolean {
  return !isDropped && !destroyed && !errored && writable !== false
}

function settleUntil<T>(
  result: Promise<T>,
  leave: () => void,
  signal: AbortSignal,
  canDeliver: () => boolean,
  refusalOf: () => SluiceError | undefined,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => {
      leave()
      const refusal = refusalOf()
      if (refusal) reject(refusal)
    }
    if (signal.aborted) return giveUp()
    signal.addEventListener('abort', giveUp, { once: true })
    const settle = (act: () => void) => {
      signal.removeEventListener('abort', giveUp)
      act()
    }
    result.then(
      // Otherwise the signal is aborted now, which calls `giveUp`.
      (value) => canDeliver() && settle(() => resolve(value)),
      (error) => settle(() => reject(error)),
    )
  })
}

export const waitsPlugin = fp<{ waits: Waits }>(async (app, { waits }) => {
  app.decorateReply('beginWait', function (this: FastifyReply, watchedFor: WatchedFor = {}) {
    return waits.begin(this, watchedFor, true)
  })
  app.decorateReply('beginDelivery', function (this: FastifyReply, watchedFor: WatchedFor = {}) {
    return waits.begin(this, watchedFor, false)
  })
})
