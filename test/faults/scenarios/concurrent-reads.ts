/** C1: ten thousand clients read the same uncached job at the same moment. */
import { Queue } from 'bullmq'
import { openClients } from '../../../load/clients.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'

const QUEUE = 'burst'
/** Prefix of every key. */
const KEY = 'cold'

export const concurrentReads: Scenario = {
  id: 'C1',
  fault: '10,000 concurrent GETs of one id, cold',
  run: (testbed, scale) => readConcurrently(testbed, scale, () => `${KEY}-0`),
  controls: [
    {
      what: 'a different job for each client',
      misses: 'reads of Redis',
      run: (testbed, scale) =>
        readConcurrently(testbed, { ...scale, isQuick: true }, (client) => `${KEY}-${client}`),
    },
  ],
}

async function readConcurrently(
  testbed: Testbed,
  scale: Scale,
  key: (client: number) => string,
): Promise<Finding> {
  const count = scale.isQuick ? 1_000 : 10_000
  const redis = await testbed.redis()
  const proxy = await testbed.proxy(redis.place)
  const service = await testbed.service(`redis://127.0.0.1:${proxy.port}`, { MAX_CONNECTIONS: '0' })
  const queue = new Queue(QUEUE, { connection: redis.client })
  const keys = ['warm', ...new Set(Array.from({ length: count }, (_, client) => key(client)))]
  await queue.addBulk(keys.map((jobId) => ({ name: 'n', data: {}, opts: { jobId } })))
  const clients = await openClients(service.url, count, '/health/live')
  testbed.onEnd(() => {
    for (const client of clients) client.close()
  })
  // Loads the script and follows the queue; the job itself has not been read yet.
  await clients[0]!.get(`/jobs/${QUEUE}:warm`)
  // Counts on the way to Redis how often the service sends the key of a requested job.
  let reads = 0
  proxy.onSent = (data) => {
    reads += data.toString('latin1').split(KEY).length - 1
  }
  const responses = await Promise.all(clients.map((client, i) => client.get(`/jobs/${QUEUE}:${key(i)}`)))
  return {
    checks: [
      { what: 'reads of Redis', measured: reads, atMost: 1 },
      { what: 'reads of Redis, at least', measured: reads, atLeast: 1 },
      {
        what: 'responses other than 200',
        measured: responses.filter(({ status }) => status !== 200).length,
        atMost: 0,
      },
    ],
    counts: { 'GETs at once': count },
  }
}
