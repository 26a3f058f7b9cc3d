/**
 * A native BullMQ worker in its own process, whose processor returns at once: the baseline for HTTP and
 * webhook workers. The process serves all rounds, as the service does; each round has its own Worker.
 */
import { Worker } from 'bullmq'
import Fastify from 'fastify'
import { createOrder } from '../scenarios/payloads/orders.ts'
import { serveTarget } from './serve.ts'

const connection = { path: process.env['REDIS_SOCKET']!, maxRetriesPerRequest: null }
const app = Fastify({ logger: false })

const RESULTS = 20
const resultsBySize = new Map<number, unknown[]>()

/** What the processor returns in turn, created once for each size. 0: the same small result. */
function resultsOf(bytes: number): unknown[] {
  let results = resultsBySize.get(bytes)
  if (!results) {
    results =
      bytes === 0
        ? [{ done: true }]
        : Array.from({ length: RESULTS }, (_, number) => createOrder(number, bytes))
    resultsBySize.set(bytes, results)
  }
  return results
}

/** Responds when `jobs` jobs have finished. */
app.get('/work', async (request) => {
  const { queue, jobs, concurrency, resultBytes } = request.query as Record<string, string>
  const results = resultsOf(Number(resultBytes))
  const taken: string[] = []
  let ended = 0
  const process = async ({ id }: { id?: string }) => {
    return results[taken.push(id!) % results.length]
  }
  const worker = new Worker(queue!, process, { connection, concurrency: Number(concurrency) })
  worker.on('error', (error) => console.error(error.message))
  await new Promise<void>((resolve) => {
    const end = () => {
      if (++ended === Number(jobs)) resolve()
    }
    worker.on('completed', end)
    worker.on('failed', end)
  })
  await worker.close()
  return { taken, ended }
})

await serveTarget(app)
