/** One reader of all event streams, for control runs: it expects entries in every reply, and waits a second after an error. */
import type { Redis } from 'ioredis'
import { sleep } from './timing.ts'

export interface CarelessReader {
  /** Resolves at the next event of the queue, or after `timeoutMs`. */
  next(queue: string, timeoutMs: number): Promise<void>
}

const BLOCK_MS = 20
const PAUSE_MS = 1_000

type Reply = [stream: string, entries: [id: string, fields: string[]][]][] | null

export function startCarelessReader(client: Redis): CarelessReader {
  const positions = new Map<string, string>()
  const waiting = new Map<string, Set<() => void>>()

  async function readOnce(): Promise<void> {
    const streams = [...positions.keys()]
    const args = ['BLOCK', `${BLOCK_MS}`, 'STREAMS', ...streams, ...streams.map((one) => positions.get(one)!)]
    const reply = (await client.call('XREAD', ...args)) as Reply
    for (const [stream, entries] of reply ?? []) {
      // A stream that keeps no events has no last entry.
      positions.set(stream, entries.at(-1)![0])
      for (const wake of waiting.get(stream) ?? []) wake()
    }
  }

  async function readOn(): Promise<void> {
    for (;;) {
      if (positions.size === 0) await sleep(BLOCK_MS)
      else await readOnce().catch(() => sleep(PAUSE_MS))
    }
  }

  void readOn()
  return {
    next(queue, timeoutMs) {
      const stream = `bull:${queue}:events`
      if (!positions.has(stream)) positions.set(stream, '$')
      const wakes = waiting.get(stream) ?? new Set()
      waiting.set(stream, wakes)
      return new Promise((resolve) => {
        const wake = () => {
          clearTimeout(timeout)
          wakes.delete(wake)
          resolve()
        }
        const timeout = setTimeout(wake, timeoutMs)
        wakes.add(wake)
      })
    },
  }
}
