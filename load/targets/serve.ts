/** A target's end of the run: it listens, tells its port, and answers what its process has cost so far. */
interface Listening {
  listen(options: { host: string; port: number }): Promise<string>
  close(): Promise<void>
}

export interface ProcessCost {
  cpuUs: number
  rssBytes: number
  /** Heap and buffers in use; after a garbage collection where the process was started with --expose-gc. */
  memoryBytes: number
}

export async function serveTarget(app: Listening): Promise<void> {
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  process.on('message', (message) => {
    if (message === 'cost') {
      const { user, system } = process.cpuUsage()
      globalThis.gc?.()
      const { rss, heapUsed, external } = process.memoryUsage()
      process.send!({
        cost: { cpuUs: user + system, rssBytes: rss, memoryBytes: heapUsed + external } satisfies ProcessCost,
      })
    } else if (message === 'stop') {
      app.close().then(() => process.exit(0))
    }
  })
  process.on('disconnect', () => process.exit(0))
  process.send!({ url })
}
