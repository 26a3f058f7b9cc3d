/**
 * A producer that calls BullMQ's addBulk in its own process, without HTTP: the baseline of batches. Its data
 * is there as objects before a run begins.
 */
import { Queue } from 'bullmq'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { createOrder, createOrderSummary, KB } from '../scenarios/payloads/orders.ts'
import { serveTarget } from './serve.ts'

const BATCHES = 8
const connection = new Redis({ path: process.env['REDIS_SOCKET']!, maxRetriesPerRequest: null })
const queue = new Queue('load', { connection })
const app = Fastify({ logger: false })

interface BulkQuery {
  jobs: number
  kind: 'order' | 'summary'
  callers: number
  seconds: number
}

let prepared: { key: string; batches: { name: string; data: unknown }[][] } | undefined

/** The batches of a run, created once, in its warm-up. */
function batchesOf({ jobs, kind }: BulkQuery) {
  const key = `${kind} ${jobs}`
  if (prepared?.key !== key) {
    const dataOf = (number: number) =>
      kind === 'order' ? createOrder(number, KB) : createOrderSummary(number)
    const batches = Array.from({ length: BATCHES }, (_, batch) =>
      Array.from({ length: jobs }, (_, i) => ({ name: 'welcome', data: dataOf(batch * jobs + i) })),
    )
    prepared = { key, batches }
  }
  return prepared.batches
}

const positive = { type: 'number', exclusiveMinimum: 0 }

app.get<{ Querystring: BulkQuery }>(
  '/add-bulk',
  {
    schema: {
      querystring: { type: 'object', properties: { jobs: positive, callers: positive, seconds: positive } },
    },
  },
  async ({ query }) => {
    const batches = batchesOf(query)
    const tookMs: number[] = []
    const began = performance.now()
    const call = async (caller: number) => {
      for (let i = caller; performance.now() - began < query.seconds * 1_000; i++) {
        const calledAt = performance.now()
        await queue.addBulk(batches[i % BATCHES]!)
        tookMs.push(performance.now() - calledAt)
      }
    }
    await Promise.all(Array.from({ length: query.callers }, (_, caller) => call(caller)))
    return { tookMs, seconds: (performance.now() - began) / 1_000 }
  },
)

await serveTarget(app)
