/**
 * Bounds the bytes that wait for all clients together (MAX_BUFFERED_BYTES). Large answers count from the moment at which
 * they are sent; smaller ones are found when the connections are checked. Above the bound, clients that take nothing are
 * disconnected, those with the most bytes first; if that is not enough, a large answer to a read is refused with 503.
 */
import type { FastifyReply, onSendHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { REPEAT_LATER, SluiceError } from '../../errors.ts'
import { PACED_BYTES, type PacedTurns } from '../../paced-turns.ts'
import type { ClientSocket, ClientSockets } from './client-sockets.ts'

declare module 'fastify' {
  interface FastifyReply {
    /** Whether an answer of this many bytes fits. Disconnects clients that take nothing, if it otherwise would not. */
    canBuffer(bytes: number): boolean
    /** Sends text (bytes: in UTF-8), for a route that declares `countsBytes`. Throws OVERLOADED if the answer to a read does not fit.
     * If the text is sent later, returns the reply, for the handler to return. */
    sendCounted(text: string | Buffer): PromiseLike<void> | undefined
  }
  interface FastifyContextConfig {
    /**
     * The route sends every answer of any size by `reply.sendCounted`. It has no onSend hook then: the hooks of one
     * cached read cost 8 % of it.
     */
    countsBytes?: boolean
  }
}

export interface SendBudgetStats {
  bufferedBytes: number
  maxBufferedBytes: number
  refusedAnswers: number
}

export interface SendBudget {
  canBuffer(bytes: number): boolean
  /** Counts bytes that are being sent, and disconnects clients if they are too many. Returns the function to call when they are sent. */
  hold(client: ClientSocket, bytes: number): () => void
  noteRefused(): void
  stats(): SendBudgetStats
}

/** A smaller answer is not counted at once: the kernel takes it, unless the client does not read. */
export const LARGE_BYTES = 16_384
/** A client that has taken nothing for this long counts as slow. */
const SLOW_MS = 1_000
/** No slow client was found: the next search is not sooner. */
const SEARCH_PAUSE_MS = 100

export function createSendBudget(sockets: ClientSockets, maxBufferedBytes: number): SendBudget {
  let bufferedBytes = 0
  let refusedAnswers = 0
  let nextSearchMs = 0
  sockets.onCheck(() => {
    bufferedBytes = 0
    for (const client of sockets.all()) {
      client.unsentBytes = Math.max(client.answerBytes, client.socket.writableLength)
      bufferedBytes += client.unsentBytes
    }
    if (bufferedBytes > maxBufferedBytes) makeSpace(maxBufferedBytes, false)
  })

  function makeSpace(limit: number, slowOnly: boolean): void {
    const nowMs = performance.now()
    if (slowOnly && nowMs < nextSearchMs) return
    const victims = chooseVictims(sockets.all(), bufferedBytes - limit, nowMs, slowOnly)
    if (victims.length === 0) nextSearchMs = nowMs + SEARCH_PAUSE_MS
    for (const client of victims) {
      bufferedBytes -= client.unsentBytes
      client.unsentBytes = 0
      sockets.disconnect(client, 'buffered')
    }
  }

  return {
    canBuffer(bytes) {
      if (bytes < LARGE_BYTES) return true
      if (bufferedBytes + bytes > maxBufferedBytes) makeSpace(maxBufferedBytes - bytes, true)
      return bufferedBytes + bytes <= maxBufferedBytes
    },
    hold(client, bytes) {
      client.answerBytes += bytes
      client.unsentBytes += bytes
      bufferedBytes += bytes
      if (bufferedBytes > maxBufferedBytes) makeSpace(maxBufferedBytes, false)
      let isHeld = true
      const release = () => {
        if (!isHeld) return
        isHeld = false
        client.onClose.delete(release)
        client.answerBytes -= bytes
        const counted = Math.min(bytes, client.unsentBytes)
        client.unsentBytes -= counted
        bufferedBytes -= counted
      }
      client.onClose.add(release)
      return release
    },
    noteRefused: () => void refusedAnswers++,
    stats: () => ({ bufferedBytes, maxBufferedBytes, refusedAnswers }),
  }
}

/** The clients to disconnect so that `excessBytes` fewer bytes wait: slow ones first, and then the most bytes. */
export function chooseVictims(
  clients: Iterable<ClientSocket>,
  excessBytes: number,
  nowMs: number,
  slowOnly: boolean,
): ClientSocket[] {
  const isSlow = ({ progress: { sinceMs } }: ClientSocket) =>
    sinceMs !== undefined && nowMs - sinceMs >= SLOW_MS
  const candidates: ClientSocket[] = []
  for (const client of clients)
    if (client.unsentBytes > 0 && (!slowOnly || isSlow(client))) candidates.push(client)
  candidates.sort((a, b) => Number(isSlow(b)) - Number(isSlow(a)) || b.unsentBytes - a.unsentBytes)
  const victims: ClientSocket[] = []
  let freedBytes = 0
  for (const client of candidates) {
    if (freedBytes >= excessBytes) break
    victims.push(client)
    freedBytes += client.unsentBytes
  }
  return victims
}

export interface SendBudgetOptions {
  sockets: ClientSockets
  budget: SendBudget
  turns: Pick<PacedTurns, 'take'>
}

export const sendBudgetPlugin = fp<SendBudgetOptions>(async (app, { sockets, budget, turns }) => {
  app.decorateReply('canBuffer', budget.canBuffer)
  app.decorateReply('sendCounted', function (this: FastifyReply, text: string | Buffer) {
    if (text.length >= LARGE_BYTES || this.raw.socket === null) count(this, text.length)
    if (text.length < PACED_BYTES) {
      this.send(text)
      return undefined
    }
    void turns.take().then(() => this.send(text))
    return this as unknown as PromiseLike<void>
  })

  app.addHook('onRoute', (route) => {
    if (route.config?.countsBytes) return
    const onSend: onSendHookHandler = (_request, reply, payload, done) => {
      const bytes = sizeOf(payload)
      if (bytes < LARGE_BYTES && reply.raw.socket !== null) return done()
      try {
        count(reply, bytes)
        if (bytes < PACED_BYTES) done()
        else void turns.take().then(() => done())
      } catch (error) {
        done(error as Error)
      }
    }
    route.onSend = [route.onSend ?? [], onSend].flat()
  })

  function count(reply: FastifyReply, bytes: number): void {
    const { request, raw } = reply
    const isRead = request.method === 'GET'
    // The answer to a write is never replaced: it says what was written.
    if (isRead && bytes >= LARGE_BYTES && !budget.canBuffer(bytes)) throw refuse(reply)
    raw.once('finish', budget.hold(sockets.of(request.raw.socket), bytes))
  }

  function refuse(reply: FastifyReply): SluiceError {
    budget.noteRefused()
    for (const name of ['etag', 'cache-control', 'cache-status']) reply.removeHeader(name)
    return new SluiceError('OVERLOADED', {
      detail: `Too many bytes wait for clients that read slowly (MAX_BUFFERED_BYTES). ${REPEAT_LATER}`,
      outcome: 'not_executed',
      retryAfterS: 1,
    })
  }
})

/** Streams count 0: they are read as fast as the client reads. */
function sizeOf(payload: unknown): number {
  return typeof payload === 'string' || Buffer.isBuffer(payload) ? payload.length : 0
}
