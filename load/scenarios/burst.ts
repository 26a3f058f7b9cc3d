/** Many clients request statuses that are not in the cache, all at once. */
import { Queue } from 'bullmq'
import { startTarget, type Target } from '../bench.ts'
import { openClients } from '../clients.ts'
import { startRedis } from '../private-redis.ts'
import { job, type Scenario } from './scenario.ts'

export const burst: Scenario = {
  name: 'cold burst',
  shows:
    'Ten thousand clients request one job at once, a thousand request one job each, and one client polls an unchanged job twenty times.',
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
      const getJob = async (index: number, key: string, etag?: string) => {
        const { status, ...response } = await clients[index]!.get(`/jobs/load:${key}`, etag)
        if (status !== (etag === undefined ? 200 : 304)) wrong++
        return response.etag
      }
      const readsOf = async (work: () => Promise<unknown>) => {
        const before = await redisReads(target)
        await work()
        return (await redisReads(target)) - before
      }
      const one = await readsOf(() => Promise.all(clients.map((_, i) => getJob(i, keys[0]!))))
      const distinct = await readsOf(() =>
        Promise.all(keys.slice(1).map((key, i) => getJob(i % clients.length, key))),
      )
      const etag = await getJob(0, keys[0]!)
      const polls = await readsOf(async () => {
        for (let i = 0; i < 20; i++) await getJob(0, keys[0]!, etag)
      })
      return {
        rows: [],
        goals: [
          { what: `Redis reads for ${count} concurrent requests of one job`, measured: one, atMost: 1 },
          { what: 'Redis reads for concurrent requests of 1,000 jobs', measured: distinct, atMost: 10 },
          { what: 'Redis reads for 20 polls with an ETag', measured: polls, atMost: 0 },
          { what: 'unexpected responses', measured: wrong, atMost: 0 },
        ],
      }
    } finally {
      for (const client of clients) client.close()
      await target.stop()
      await redis.stop()
    }
  },
}

async function redisReads(target: Target): Promise<number> {
  const stats = (await (await fetch(`${target.url}/stats`)).json()) as {
    commandsSent: Record<string, number>
  }
  return stats.commandsSent['jobView'] ?? 0
}
