/** Measures how soon a waiting worker receives a job: takes with `wait`, and a job added natively while each one waits. */
import { Queue } from 'bullmq'
import type { Target } from './attacks.ts'
import type { RedisServer } from './processes.ts'
import type { Testbed } from './testbed.ts'
import { sleep } from './timing.ts'

const WAIT_S = 5

export interface WakeUpOptions {
  /** Of the queue's producer: 0 keeps no events. */
  maxEvents?: number
}

/** From the job's insertion to the response, ms, for `seconds`. A take that ends without a job counts as the longest wait. */
export async function takeWaiting(
  testbed: Testbed,
  { redis, service, ordinary }: Target,
  name: string,
  seconds: number,
  { maxEvents = 10_000 }: WakeUpOptions = {},
): Promise<number[]> {
  const httpClient = testbed.httpClient()
  const queue = producer(redis, name, maxEvents)
  const take = (wait: number) =>
    httpClient.ask(`${service.url}/queues/${name}/leases`, {
      ...{ headers: ordinary, body: JSON.stringify({ wait, leaseMs: 600_000 }) },
      timeoutMs: (WAIT_S + 5) * 1_000,
    })
  const deadline = performance.now() + seconds * 1_000
  const times: number[] = []
  while (performance.now() < deadline) {
    const taking = take(WAIT_S)
    await sleep(50)
    const at = performance.now()
    await queue.add('n', {})
    const { status } = await taking
    times.push(status === 200 ? performance.now() - at : WAIT_S * 1_000)
  }
  return times
}

export function producer({ client }: RedisServer, name: string, maxEvents: number): Queue {
  return new Queue(name, { connection: client, streams: { events: { maxLen: maxEvents } } })
}
