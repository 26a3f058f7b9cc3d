/**
 * The target's side of a run: listens, reports its URL to the parent, and reports its CPU and memory on
 * request.
 */
interface Listening {
  listen(options: { host: string; port: number }): Promise<string>
  close(): Promise<void>
}

export interface ProcessCost {
  cpuUs: number
  rssBytes: number
}

export async function serveTarget(app: Listening): Promise<void> {
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  process.on('message', (message) => {
    if (message === 'cost') {
      const { user, system } = process.cpuUsage()
      const cost: ProcessCost = { cpuUs: user + system, rssBytes: process.memoryUsage.rss() }
      process.send!({ cost })
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
