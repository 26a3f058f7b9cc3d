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
      process.send!({
        cost: { cpuUs: user + system, rssBytes: process.memoryUsage.rss() } satisfies ProcessCost,
      })
    } else if (message === 'stop') {
      app.close().then(() => process.exit(0))
    }
  })
  process.on('disconnect', () => process.exit(0))
  process.send!({ url })
}
