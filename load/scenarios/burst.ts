/** Many ask at the same moment for what is not in memory. */
import { Queue } from 'bullmq'
import { startTarget, type Target } from '../bench.ts'
import { openClients } from '../clients.ts'
import { startRedis } from '../private-redis.ts'
import { job, type Scenario } from './scenario.ts'

export const burst: Scenario = {
  name: 'cold burst',
  shows:
    'Ten thousand ask for one job at once, a thousand for a job each, and twenty polls of one that does not change.',
  async run(effort) {
    const count = effort.isQuick ? 1_000 : 10_000
    const redis = await startRedis()
    const target = await startTarget('ours', { REDIS_SOCKET: redis.socket, MAX_CONNECTIONS: '0' })
    const clients = await openClients(target.url, count, '/health/live')
    try {
      const queue = new Queue('load', { connection: redis.client })
      const keys = Array.from({ length: 1_001 }, (_, i) => `job-${i}`)
      await queue.addBulk(keys.map((jobId) => ({ name: job.name, data: job.data, opts: { jobId } })))
      let wrong = 0
      const ask = async (index: number, key: string, etag?: string) => {
        const { status, ...answer } = await clients[index]!.get(`/jobs/load:${key}`, etag)
        if (status !== (etag === undefined ? 200 : 304)) wrong++
        return answer.etag
      }
      const looksOf = async (work: () => Promise<unknown>) => {
        const before = await looks(target)
        await work()
        return (await looks(target)) - before
      }
      const one = await looksOf(() => Promise.all(clients.map((_, i) => ask(i, keys[0]!))))
      const distinct = await looksOf(() =>
        Promise.all(keys.slice(1).map((key, i) => ask(i % clients.length, key))),
      )
      const etag = await ask(0, keys[0]!)
      const polls = await looksOf(async () => {
        for (let i = 0; i < 20; i++) await ask(0, keys[0]!, etag)
      })
      return {
        rows: [],
        goals: [
          { what: `looks in Redis for ${count} who ask for one job`, measured: one, atMost: 1 },
          { what: 'looks, and so writes to the socket, for 1,000 jobs', measured: distinct, atMost: 10 },
          { what: 'looks for 20 polls with an ETag', measured: polls, atMost: 0 },
          { what: 'answers that were not as they should be', measured: wrong, atMost: 0 },
        ],
      }
    } finally {
      for (const client of clients) client.close()
      await target.stop()
      await redis.stop()
    }
  },
}

async function looks(target: Target): Promise<number> {
  const stats = (await (await fetch(`${target.url}/stats`)).json()) as {
    commandsSent: Record<string, number>
  }
  return stats.commandsSent['jobView'] ?? 0
}
