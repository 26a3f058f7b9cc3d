/**
 * Requests whose answer waits for something: a long poll, a take, an event stream. `reply.beginWait()` counts one per
 * connection, per API key and in all; `reply.beginDelivery()` counts nothing. Both watch the client until its answer is
 * sent: a response that is queued behind another one on its connection emits no 'close', so the connection is watched.
 */
import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Access, Scope } from '../../auth/access.ts'
import { REPEAT_LATER, SluiceError } from '../../errors.ts'
import type { ClientSocket, ClientSockets } from './client-sockets.ts'

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

export interface WatchedFor {
  /** The queue that the key must be able to see. */
  queue?: string
  /** The scope that the key must have; by default that of the route. */
  scope?: Scope
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

interface Watched {
  request: FastifyRequest
  watchedFor: WatchedFor
  isWait: boolean
  abort(refusal?: SluiceError): void
}

interface OfKey {
  watches: Set<Watched>
  waits: number
}

/** Together with the poll of API_KEYS_FILE, 1 s, a revoked key loses its waits within two seconds. */
const SWEEP_MS = 500

export function createWaits(options: WaitsOptions): Waits {
  const { sockets, isInForce, max } = options
  const byAccess = new Map<Access, OfKey>()
  let open = 0
  let refused = 0
  const timer = setInterval(sweep, SWEEP_MS)

  /** Looks at keys, not at waits: ten thousand waits of one key cost nothing while the key is in force. */
  function sweep(): void {
    for (const [access, { watches }] of byAccess) {
      if (isInForce(access)) continue
      for (const watched of [...watches]) review(watched)
    }
  }

  /** Moves a request to the changed key, or ends it. */
  function review(watched: Watched): boolean {
    const { request, watchedFor } = watched
    remove(watched)
    const isPermitted = request.mayContinue(watchedFor.scope, watchedFor.queue)
    add(watched)
    if (!isPermitted) watched.abort(keyChanged())
    return isPermitted
  }

  function add(watched: Watched): void {
    const { access } = watched.request
    const ofKey = byAccess.get(access) ?? { watches: new Set(), waits: 0 }
    if (ofKey.watches.size === 0) byAccess.set(access, ofKey)
    ofKey.watches.add(watched)
    if (watched.isWait) ofKey.waits++
  }

  function remove(watched: Watched): void {
    const { access } = watched.request
    const ofKey = byAccess.get(access)
    if (!ofKey?.watches.delete(watched)) return
    if (watched.isWait) ofKey.waits--
    if (ofKey.watches.size === 0) byAccess.delete(access)
  }

  function assertBounds({ keyId }: Access, ofKey: OfKey | undefined, client: ClientSocket): void {
    const { maxPerConnection, maxPerKey } = options
    const refuse = (code: 'TOO_MANY_WAITS' | 'OVERLOADED', detail: string) => {
      refused++
      throw new SluiceError(code, {
        detail: `${detail} ${REPEAT_LATER}`,
        outcome: 'not_executed',
        retryAfterS: 1,
      })
    }
    if (client.waits >= maxPerConnection)
      refuse(
        'TOO_MANY_WAITS',
        `This connection has ${client.waits} requests that wait. Use more connections.`,
      )
    // Without a key there is no one to protect the others from: the bound on all requests applies.
    if (keyId !== '' && (ofKey?.waits ?? 0) >= maxPerKey)
      refuse('TOO_MANY_WAITS', `The API key ${keyId} has ${maxPerKey} requests that wait.`)
    if (open >= max) refuse('OVERLOADED', `${max} requests wait (MAX_WAITS).`)
  }

  function begin(reply: FastifyReply, watchedFor: WatchedFor, isWait: boolean): ClientWatch {
    const { request, raw } = reply
    const { socket } = request.raw
    const client = sockets.of(socket)
    if (isWait) assertBounds(request.access, byAccess.get(request.access), client)
    const controller = new AbortController()
    let refusal: SluiceError | undefined
    let hasEnded = false
    const watched: Watched = {
      request,
      watchedFor,
      isWait,
      abort(reason) {
        refusal ??= reason
        controller.abort()
      },
    }
    const end = () => {
      if (hasEnded) return
      hasEnded = true
      remove(watched)
      client.onClose.delete(leave)
      if (!isWait) return
      client.waits--
      open--
    }
    const leave = () => {
      end()
      watched.abort()
    }
    add(watched)
    client.onClose.add(leave)
    if (isWait) {
      client.waits++
      open++
    }
    // Before Node's own listener, which may close the connection. Node also emits 'finish' when the last write failed.
    raw.prependOnceListener('finish', () => (socket.destroyed || socket.errored ? leave() : end()))
    if (!isWritable(socket)) leave()

    const canDeliver = () => {
      if (controller.signal.aborted || raw.writableEnded) return false
      if (isWritable(socket)) return isInForce(request.access) || review(watched)
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
    close: () => clearInterval(timer),
  }
}

function keyChanged(): SluiceError {
  return new SluiceError('UNAUTHORIZED', {
    detail:
      'The API key was revoked or changed while the request waited, and no longer permits it. Send a valid key.',
  })
}

/** False once either side has ended the connection. The socket of an injected request has none of these properties. */
function isWritable({ destroyed, errored, writable }: Socket): boolean {
  return !destroyed && !errored && writable !== false
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
    result.then((value) => {
      if (canDeliver()) resolve(value)
    }, reject)
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
