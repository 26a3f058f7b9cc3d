/** Load generators. Closed loop: each client sends its next request after the response. Open loop: requests are sent at a fixed rate. */
import type { Testbed } from './testbed.ts'
import { sleep } from './timing.ts'

export interface Running {
  /** Stops sending; resolves when all requests have been answered. */
  stop(): Promise<void>
}

/** `clients` concurrent clients, each with one request at a time. */
export function closedLoop(
  testbed: Testbed,
  clients: number,
  work: (client: number) => Promise<unknown>,
): Running {
  let isStopped = false
  // For a scenario that fails before it stops the load.
  testbed.onEnd(() => {
    isStopped = true
  })
  const all = Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      while (!isStopped) await work(client)
    }),
  )
  return {
    async stop() {
      isStopped = true
      await all
    },
  }
}

/** A fixed rate, as independent users would produce. */
export function openLoop(
  testbed: Testbed,
  ratePerS: number,
  work: (index: number) => Promise<unknown>,
): Running {
  let isStopped = false
  testbed.onEnd(() => {
    isStopped = true
  })
  const underWay = new Set<Promise<unknown>>()
  const startedAt = performance.now()
  const sending = (async () => {
    for (let sent = 0; !isStopped; await sleep(1)) {
      const due = Math.floor((ratePerS * (performance.now() - startedAt)) / 1_000)
      for (; sent < due; sent++) {
        const asked = work(sent).finally(() => underWay.delete(asked))
        underWay.add(asked)
      }
    }
  })()
  return {
    async stop() {
      isStopped = true
      await sending
      await Promise.all(underWay)
    },
  }
}
