/**
 * The target's side of a run: listens, reports its URL to the parent, and reports its CPU, memory and event
 * loop on request.
 */
import { type PerformanceEntry, PerformanceObserver } from 'node:perf_hooks'

interface Listening {
  listen(options: { host: string; port: number }): Promise<string>
  close(): Promise<void>
}

export interface ProcessCost {
  cpuUs: number
  /** Pauses for garbage collection. */
  gcUs: number
  rssBytes: number
}

export async function serveTarget(app: Listening): Promise<void> {
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const gcUs = countGarbageCollection()
  let longestTurnMs: (() => number) | undefined
  process.on('message', (message) => {
    if (message === 'cost') {
      const { user, system } = process.cpuUsage()
      const cost: ProcessCost = { cpuUs: user + system, gcUs: gcUs(), rssBytes: process.memoryUsage.rss() }
      process.send!({ cost })
    } else if (message === 'turns') {
      longestTurnMs ??= watchTurns()
      process.send!({ longestTurnMs: longestTurnMs() })
    } else if (message === 'memory') {
      // Separate from the cost, because code runs slower after a full garbage collection.
      globalThis.gc?.()
      const { heapUsed, external } = process.memoryUsage()
      process.send!({ memoryBytes: heapUsed + external })
    } else if (message === 'stop') {
      app.close().then(() => process.exit(0))
    }
  })
  process.on('disconnect', () => process.exit(0))
  process.send!({ url })
}

function countGarbageCollection(): () => number {
  let us = 0
  const add = (entries: PerformanceEntry[]) => {
    for (const { duration } of entries) us += duration * 1_000
  }
  const observer = new PerformanceObserver((list) => add(list.getEntries()))
  observer.observe({ entryTypes: ['gc'] })
  return () => {
    add(observer.takeRecords())
    return us
  }
}

/**
 * Keeps the event loop turning, and returns what the longest turn since the last call took, ms. A turn counts with the
 * smaller of its wall time and its CPU time, because on a busy machine the process also waits for a core.
 */
function watchTurns(): () => number {
  let longest = 0
  let lastMs = performance.now()
  let lastCpuMs = cpuMs()
  const turn = () => {
    const nowMs = performance.now()
    const nowCpuMs = cpuMs()
    longest = Math.max(longest, Math.min(nowMs - lastMs, nowCpuMs - lastCpuMs))
    lastMs = nowMs
    lastCpuMs = nowCpuMs
    setImmediate(turn)
  }
  setImmediate(turn)
  return () => {
    const result = longest
    longest = 0
    return result
  }
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1_000
}
