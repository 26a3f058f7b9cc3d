/** A target's end of the run: it listens, tells its port, and answers what its process has cost so far. */
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
      // Not along with the cost: a full collection costs the code that follows it its optimisations.
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
