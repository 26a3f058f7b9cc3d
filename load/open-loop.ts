/**
 * Requests by the clock, whatever becomes of those before: users do not wait for each other. A request for which no client
 * is free at its time is counted and not sent, as by a caller whose own connections are all busy.
 */
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import type { Answer, Client } from './clients.ts'

export interface OpenLoop {
  clients: Client[]
  ask(client: Client): Promise<Answer>
  /** Infinity: as soon as a client is free, which is a closed loop. */
  ratePerS: number
  seconds: number
}

export interface Offered {
  sent: number
  /** No client was free. */
  unsent: number
  /** How long each answer took, µs, by its status; 0: the connection ended without one. */
  answers: Map<number, RecordableHistogram>
  seconds: number
  /** From the last request to the last answer. */
  drainMs: number
}

const TICK_MS = 1

export async function offer({ clients, ask, ratePerS, seconds }: OpenLoop): Promise<Offered> {
  const free = [...clients]
  const answers: Offered['answers'] = new Map()
  const underWay = new Set<Promise<void>>()
  let sent = 0
  let unsent = 0

  function note(status: number, tookMs: number): void {
    let histogram = answers.get(status)
    if (!histogram) {
      histogram = createHistogram()
      answers.set(status, histogram)
    }
    histogram.record(Math.max(1, Math.round(tookMs * 1_000)))
  }

  function send(client: Client): void {
    const sentAt = performance.now()
    sent++
    const asked = ask(client)
      .then(
        ({ status }) => {
          note(status, performance.now() - sentAt)
          free.push(client)
        },
        () => note(0, performance.now() - sentAt),
      )
      .then(() => void underWay.delete(asked))
    underWay.add(asked)
  }

  const isClosed = ratePerS === Number.POSITIVE_INFINITY
  const began = performance.now()
  for (let elapsedMs = 0; elapsedMs < seconds * 1_000; elapsedMs = performance.now() - began) {
    const due = isClosed ? free.length : Math.floor((ratePerS * elapsedMs) / 1_000) - sent - unsent
    for (let i = 0; i < due; i++) {
      const client = free.shift()
      if (client) send(client)
      else unsent++
    }
    await new Promise((resolve) => (isClosed ? setImmediate(resolve) : setTimeout(resolve, TICK_MS)))
  }
  const lastSentAt = performance.now()
  await Promise.all(underWay)
  return {
    sent,
    unsent,
    answers,
    seconds: (lastSentAt - began) / 1_000,
    drainMs: performance.now() - lastSentAt,
  }
}
