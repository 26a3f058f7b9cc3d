/** The "before" of the field reports: every request opens a queue with its own connection. */
import { type JobsOptions, Queue } from 'bullmq'
import Fastify from 'fastify'
import { serveTarget } from './serve.ts'

const connection = { path: process.env['REDIS_SOCKET']!, maxRetriesPerRequest: null }
const app = Fastify({ logger: false })

app.post('/jobs', async (request, reply) => {
  const { queue: name = 'default', ...job } = request.body as {
    queue?: string
    name: string
    data?: unknown
    opts?: JobsOptions
  }
  const queue = new Queue(name, { connection })
  const added = await queue.add(job.name, job.data ?? {}, job.opts)
  await queue.close()
  return reply.code(201).send({ id: `${name}:${added.id}`, queue: name, name: job.name, state: 'waiting' })
})

app.get('/jobs/:id', async (request, reply) => {
  const [name, key] = (request.params as { id: string }).id.split(':') as [string, string]
  const queue = new Queue(name, { connection })
  const job = await queue.getJob(key)
  const state = await job?.getState()
  await queue.close()
  return job
    ? { id: `${name}:${key}`, state, name: job.name, progress: job.progress }
    : reply.code(404).send({ error: 'not found' })
})

await serveTarget(app)
