/** C1: ten thousand ask for one job at the same moment, and it is not in memory. */
import { Queue } from 'bullmq'
import { openClients } from '../../../load/clients.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const QUEUE = 'burst'
/** Every key begins with this. */
const KEY = 'cold'

export const burst: Scenario = {
  id: 'C1',
  fault: '10,000 concurrent GETs of one id, cold',
  run: (stage, scale) => askAtOnce(stage, scale, () => `${KEY}-0`),
  controls: [
    {
      what: 'a job each',
      misses: 'reads of Redis',
      run: (stage, scale) => askAtOnce(stage, { ...scale, isQuick: true }, (client) => `${KEY}-${client}`),
    },
  ],
}

async function askAtOnce(stage: Stage, scale: Scale, key: (client: number) => string): Promise<Finding> {
  const count = scale.isQuick ? 1_000 : 10_000
  const redis = await stage.redis()
  const proxy = await stage.proxy(redis.place)
  const service = await stage.service(`redis://127.0.0.1:${proxy.port}`, { MAX_CONNECTIONS: '0' })
  const queue = new Queue(QUEUE, { connection: redis.client })
  const keys = ['warm', ...new Set(Array.from({ length: count }, (_, client) => key(client)))]
  await queue.addBulk(keys.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const clients = await openClients(service.url, count, '/health/live')
  stage.onEnd(() => {
    for (const client of clients) client.close()
  })
  // The script is known to Redis, and the queue is being followed; the job itself has not been asked for.
  await clients[0]!.get(`/jobs/${QUEUE}:warm`)
  // Counted on the way to Redis: how often the service sends the key of a job that is asked for.
  let reads = 0
  proxy.onSent = (data) => {
    reads += data.toString('latin1').split(KEY).length - 1
  }
  const answers = await Promise.all(clients.map((client, i) => client.get(`/jobs/${QUEUE}:${key(i)}`)))
  return {
    checks: [
      { what: 'reads of Redis', measured: reads, atMost: 1 },
      { what: 'reads of Redis, at least', measured: reads, atLeast: 1 },
      { what: 'answers but 200', measured: answers.filter(({ status }) => status !== 200).length, atMost: 0 },
    ],
    counts: { 'GETs at once': count },
  }
}
