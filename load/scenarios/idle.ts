/** A service without requests. */
import { redisCost, startTarget } from '../bench.ts'
import { startRedis } from '../private-redis.ts'
import { job, json, type Scenario } from './scenario.ts'

export const idle: Scenario = {
  name: 'idle with 50 queues',
  shows: 'What the service costs Redis while it gets no requests.',
  async run(effort) {
    const redis = await startRedis()
    const ours = await startTarget('ours', { REDIS_SOCKET: redis.socket })
    try {
      for (let index = 0; index < 50; index++) {
        await fetch(`${ours.url}/jobs`, {
          method: 'POST',
          headers: json,
          body: JSON.stringify({ ...job, queue: `queue-${index}` }),
        })
      }
      const before = await redisCost(redis.client)
      await new Promise((resolve) => setTimeout(resolve, effort.seconds * 1_000))
      const after = await redisCost(redis.client)
      // One command and one connection belong to the measurement.
      return {
        rows: [],
        goals: [
          {
            what: 'Redis commands per second',
            measured: (after.commands - before.commands - 1) / effort.seconds,
            atMost: 1,
          },
          { what: 'connections', measured: after.connections - 1, atMost: 5 },
        ],
      }
    } finally {
      await ours.stop()
      await redis.stop()
    }
  },
}
