/**
 * A native BullMQ worker in its own process, whose processor returns at once: the baseline for HTTP and
 * webhook workers. The process serves all rounds, as the service does; each round has its own Worker.
 */
import { Worker } from 'bullmq'
import Fastify from 'fastify'
import { serveTarget } from './serve.ts'

const connection = { path: process.env['REDIS_SOCKET']!, maxRetriesPerRequest: null }
const app = Fastify({ logger: false })

/** Responds when `jobs` jobs have finished. */
app.get('/work', async (request) => {
  const { queue, jobs, concurrency } = request.query as Record<string, string>
  const taken: string[] = []
  let ended = 0
  const process = async ({ id }: { id?: string }) => {
    taken.push(id!)
    return { done: true }
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
