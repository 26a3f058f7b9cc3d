/**
 * An open-loop load: requests are sent at a fixed rate, independent of earlier responses, as real users do. A
 * request for which no client is free is counted but not sent, as by a caller whose connection pool is
 * exhausted.
 */
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import type { Client, HttpResponse } from './clients.ts'

export interface OpenLoop {
  clients: Client[]
  send(client: Client): Promise<HttpResponse>
  /** Infinity sends as soon as a client is free, which makes it a closed loop. */
  ratePerS: number
  seconds: number
}

export interface OfferedLoad {
  sent: number
  /** Requests for which no client was free. */
  unsent: number
  /** Latency by status, µs; status 0 means that the connection ended without a response. */
  latencies: Map<number, RecordableHistogram>
  seconds: number
  /** From the last request to the last response. */
  drainMs: number
}

const TICK_MS = 1

export async function offerLoad({ clients, send, ratePerS, seconds }: OpenLoop): Promise<OfferedLoad> {
  const free = [...clients]
  const latencies: OfferedLoad['latencies'] = new Map()
  const inFlight = new Set<Promise<void>>()
  let sent = 0
  let unsent = 0

  function record(status: number, tookMs: number): void {
    let histogram = latencies.get(status)
    if (!histogram) {
      histogram = createHistogram()
      latencies.set(status, histogram)
    }
    histogram.record(Math.max(1, Math.round(tookMs * 1_000)))
  }

  function start(client: Client): void {
    const sentAt = performance.now()
    sent++
    const request = send(client)
      .then(
        ({ status }) => {
          record(status, performance.now() - sentAt)
          free.push(client)
        },
        () => record(0, performance.now() - sentAt),
      )
      .then(() => void inFlight.delete(request))
    inFlight.add(request)
  }

  const isClosed = ratePerS === Number.POSITIVE_INFINITY
  const began = performance.now()
  for (let elapsedMs = 0; elapsedMs < seconds * 1_000; elapsedMs = performance.now() - began) {
    const due = isClosed ? free.length : Math.floor((ratePerS * elapsedMs) / 1_000) - sent - unsent
    for (let i = 0; i < due; i++) {
      const client = free.shift()
      if (client) start(client)
      else unsent++
    }
    await new Promise((resolve) => (isClosed ? setImmediate(resolve) : setTimeout(resolve, TICK_MS)))
  }
  const lastSentAt = performance.now()
  await Promise.all(inFlight)
  return {
    sent,
    unsent,
    latencies,
    seconds: (lastSentAt - began) / 1_000,
    drainMs: performance.now() - lastSentAt,
  }
}
