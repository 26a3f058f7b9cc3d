/** What an HTTP worker sends, and the queue `q` through BullMQ. */
import { Queue } from 'bullmq'
import type { Test } from 'tap'
import { startApp, type TestApp } from '../helpers/app.ts'
import type { TestRedis } from '../helpers/redis.ts'

export const connectionTo = ({ socket }: TestRedis) => ({ path: socket, maxRetriesPerRequest: null })

/** Starts the service and opens the queue; both are closed when the test ends. */
export async function openWork(t: Test, redis: TestRedis, settings: Record<string, string> = {}) {
  const app = await startApp(redis, settings)
  const queue = new Queue('q', { connection: connectionTo(redis), prefix: app.prefix })
  // BullMQ writes the same hash, a moment later.
  await redis.client.hset(`${app.prefix}:q:meta`, 'opts.maxLenEvents', 10_000)
  t.teardown(async () => {
    await queue.close()
    await app.http.close()
  })
  return { app, queue }
}

export async function post(app: TestApp, url: string, body: object) {
  const headers = { 'content-type': 'application/json' }
  const response = await app.http.inject({ method: 'POST', url, headers, payload: JSON.stringify(body) })
  return { status: response.statusCode, body: response.statusCode === 204 ? undefined : response.json() }
}

export const take = (app: TestApp, body: object = {}) => post(app, '/queues/q/leases', body)

export const settle = (app: TestApp, items: object[], next?: object) =>
  post(app, '/leases/settle', { items, ...(next ? { next } : {}) })
