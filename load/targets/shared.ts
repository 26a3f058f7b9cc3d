/**
 * A well-written direct integration: one Fastify handler and one shared Queue; `queue.add`, `addBulk`,
 * `getJob` and `getState`.
 */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { type JobsOptions, Queue } from 'bullmq'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { BatchBody, NewJobBody, StoredJob } from '../../src/jobs/enqueue/schemas.ts'
import { serveTarget } from './serve.ts'

const connection = new Redis({ path: process.env['REDIS_SOCKET']!, maxRetriesPerRequest: null })
const queues = new Map<string, Queue>()
const queueOf = (name: string) => {
  let queue = queues.get(name)
  if (!queue) {
    // The retention of the field report; without any, Redis would grow.
    queue = new Queue(name, { connection, defaultJobOptions: { removeOnComplete: 100, removeOnFail: 500 } })
    queues.set(name, queue)
  }
  return queue
}

interface BulkJob {
  name: string
  data: unknown
  opts: JobsOptions
}

const app = Fastify({ logger: false }).withTypeProvider<TypeBoxTypeProvider>()

app.post('/jobs', { schema: { body: NewJobBody, response: { 201: StoredJob } } }, async (request, reply) => {
  const { queue = 'default', name, data = {}, opts = {} } = request.body
  const job = await queueOf(queue).add(name, data, opts as JobsOptions)
  reply.code(201)
  const createdAt = new Date(job.timestamp).toISOString()
  return { id: `${queue}:${job.id}`, queue, name, state: 'waiting' as const, createdAt, deduplicated: false }
})

app.post('/jobs/batch', { schema: { body: BatchBody }, bodyLimit: 5_242_880 }, async (request, reply) => {
  const byQueue = new Map<string, BulkJob[]>()
  for (const { queue = 'default', name, data = {}, opts = {} } of request.body.jobs) {
    const jobs = byQueue.get(queue) ?? []
    byQueue.set(queue, jobs)
    jobs.push({ name, data, opts: opts as JobsOptions })
  }
  const added = await Promise.all([...byQueue].map(([queue, jobs]) => queueOf(queue).addBulk(jobs)))
  return reply.code(201).send({ ids: added.flat().map((job) => `${job.queueName}:${job.id}`) })
})

app.get('/jobs/:id', async (request, reply) => {
  const [queue, key] = (request.params as { id: string }).id.split(':') as [string, string]
  const job = await queueOf(queue).getJob(key)
  if (!job) return reply.code(404).send({ error: 'not found' })
  const state = await job.getState()
  const { name, progress, attemptsMade, timestamp, returnvalue } = job
  return { id: `${queue}:${key}`, queue, name, state, progress, attemptsMade, timestamp, result: returnvalue }
})

await serveTarget(app)
