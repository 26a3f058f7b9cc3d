/** How requests are offered: each client as soon as it has its answer, or by the clock whatever becomes of those before. */
import type { Stage } from './stage.ts'
import { sleep } from './wait.ts'

export interface Running {
  /** No more is sent; resolves when all that was sent has been answered. */
  stop(): Promise<void>
}

/** `clients` of them, each one after the other. */
export function closedLoop(
  stage: Stage,
  clients: number,
  work: (client: number) => Promise<unknown>,
): Running {
  let isStopped = false
  // Also where the scenario ends before it has come to that.
  stage.onEnd(() => {
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

/** By the clock: users do not wait for each other. */
export function openLoop(stage: Stage, ratePerS: number, work: (index: number) => Promise<unknown>): Running {
  let isStopped = false
  stage.onEnd(() => {
    isStopped = true
  })
  const underWay = new Set<Promise<unknown>>()
  const began = performance.now()
  const sending = (async () => {
    for (let sent = 0; !isStopped; await sleep(1)) {
      const due = Math.floor((ratePerS * (performance.now() - began)) / 1_000)
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
