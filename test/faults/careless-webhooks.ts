/** Webhooks for control runs: one bad record keeps all subscriptions from being served, and nothing bounds a receiver. */
import { type ConnectionOptions, Worker } from 'bullmq'
import type { Redis } from 'ioredis'
import { createKeyspace } from '../../src/redis/keyspace.ts'

export interface CarelessWebhooks {
  put(queue: string, record: string): Promise<void>
}

interface Subscription {
  url: string
  timeoutMs: number
  concurrency?: number
}

/** Of the hash of a subscription: its record. */
export const SUBSCRIPTION_FIELD = 'subscription'

const REFRESH_MS = 200
const keyspace = createKeyspace('bull')

export function startCarelessWebhooks(client: Redis, connection: ConnectionOptions): CarelessWebhooks {
  const workers = new Map<string, Worker>()

  async function refresh(): Promise<void> {
    const queues = await client.smembers(keyspace.subscriptions)
    const texts = await Promise.all(
      queues.map((queue) => client.hget(keyspace.subscription(queue), SUBSCRIPTION_FIELD)),
    )
    const subscriptions = texts.map((text) => JSON.parse(text ?? '{') as Subscription)
    queues.forEach((queue, index) => {
      if (!workers.has(queue)) workers.set(queue, startWorker(queue, subscriptions[index]!, connection))
    })
  }

  setInterval(() => void refresh().catch(() => {}), REFRESH_MS)
  return {
    async put(queue, record) {
      await client.hset(keyspace.subscription(queue), SUBSCRIPTION_FIELD, record)
      await client.sadd(keyspace.subscriptions, queue)
    },
  }
}

function startWorker(
  queue: string,
  { url, timeoutMs, concurrency = 10 }: Subscription,
  connection: ConnectionOptions,
): Worker {
  return new Worker(
    queue,
    async ({ id, name, data }) => {
      const body = JSON.stringify({ id: `${queue}:${id}`, name, data })
      const signal = AbortSignal.timeout(timeoutMs)
      const response = await fetch(url, { method: 'POST', body, signal })
      await response.text()
    },
    { connection, concurrency },
  ).on('error', () => {})
}
