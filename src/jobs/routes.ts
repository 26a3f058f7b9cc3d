/** `/jobs`: enqueue one, enqueue many, ask for one. Parse, one call of the domain, answer. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Config } from '../config.ts'
import { BODY_PROBLEMS, problemResponses, REDIS_PROBLEMS, SluiceError } from '../errors.ts'
import type { AddBatch } from './batch.ts'
import type { Enqueuer, NewJob, Stored } from './enqueuer.ts'
import { parseJobId } from './id.ts'
import type { Include } from './job-reader.ts'
import { etagOf, resourceOfNewJob, rfc3339 } from './job-resource.ts'
import { isNotModified, retryAfterS, wantsReadThrough } from './polling.ts'
import {
  BatchBody,
  BatchResult,
  Job,
  JobHeaders,
  JobParams,
  JobQuery,
  NewJobBody,
  StoredJob,
} from './schemas.ts'
import type { Found, StatusCache } from './status-cache.ts'

export interface JobRoutes {
  config: Config
  enqueuer: Enqueuer
  addBatch: AddBatch
  statusCache: StatusCache
  toNewJob(body: NewJobBody): NewJob
  /** Checks the frame of a batch; its items are checked one by one. */
  batchValidator(value: unknown): { value: unknown } | { error: Error }
}

const header = (description: string) => ({ type: 'string', description })
const tagged = {
  ETag: header('Strong; for If-None-Match.'),
  'X-Request-Id': header('The id of this request.'),
}
const located = { ...tagged, Location: header('Where to follow the job.') }
const polled = {
  ...tagged,
  'Cache-Status': header(
    'RFC 9211: whether the answer came out of memory, and for how long it is fresh, seconds.',
  ),
  'Retry-After': header('Seconds until it is worth asking again; missing once the job has finished.'),
}

export async function jobRoutes(instance: FastifyInstance, deps: JobRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { config, enqueuer, addBatch, statusCache, toNewJob, batchValidator } = deps

  app.post('/jobs', {
    config: { scope: 'enqueue' },
    bodyLimit: config.BODY_LIMIT,
    schema: {
      operationId: 'addJob',
      summary: 'Enqueue a job',
      description: 'Answered only after Redis has answered for this very job.',
      tags: ['jobs'],
      body: NewJobBody,
      response: {
        201: { ...StoredJob, description: 'Stored.', headers: located },
        200: {
          ...StoredJob,
          description: 'It was there already (opts.jobId or opts.deduplication): the id is of that job.',
        },
        ...problemResponses([
          'INVALID_NAME',
          'INVALID_OPTION',
          'NOT_IMPLEMENTED',
          ...BODY_PROBLEMS,
          ...REDIS_PROBLEMS,
        ]),
      },
    },
    handler: (request, reply) => {
      refuseIdempotencyKey(request)
      const job = toNewJob(request.body)
      return enqueuer.add(job).then((stored) => describeStored(reply, stored, job))
    },
  })

  app.post('/jobs/batch', {
    config: { scope: 'enqueue' },
    bodyLimit: config.BATCH_BODY_LIMIT,
    validatorCompiler: () => batchValidator,
    schema: {
      operationId: 'addJobs',
      summary: 'Enqueue many jobs, each standing alone',
      description:
        'One bad item never costs the others. Jobs of one queue are one Redis command, 200 at most.',
      tags: ['jobs'],
      body: BatchBody,
      response: {
        201: { ...BatchResult, description: 'All are there.' },
        207: { ...BatchResult, description: 'Some are not.' },
        ...problemResponses(['NOT_IMPLEMENTED', ...BODY_PROBLEMS, ...REDIS_PROBLEMS]),
        422: { ...BatchResult, description: 'None was stored; each says why.' },
      },
    },
    handler: async (request, reply) => {
      refuseIdempotencyKey(request)
      const { status, body } = await addBatch(request.body.jobs)
      return reply.code(status).send(body)
    },
  })

  app.get('/jobs/:id', {
    config: { scope: 'read' },
    schema: {
      operationId: 'getJob',
      summary: 'Ask for a job',
      description:
        'Served from memory where that is fresh. `Retry-After` says when to ask again; with If-None-Match an unchanged job costs nothing.',
      tags: ['jobs'],
      params: JobParams,
      querystring: JobQuery,
      headers: JobHeaders,
      response: {
        200: { description: 'The job.', headers: polled, content: { 'application/json': { schema: Job } } },
        304: { description: 'Unchanged since the ETag in If-None-Match.', headers: polled, type: 'null' },
        ...problemResponses(['JOB_NOT_FOUND', ...REDIS_PROBLEMS]),
      },
    },
    // No async: what is in memory goes out without a promise in between.
    handler: (request, reply) => {
      const include = parseInclude(request.query.include)
      const ref = parseJobId(request.params.id, config.DEFAULT_QUEUE)
      if (!ref) throw new SluiceError('JOB_NOT_FOUND')
      const bypass = wantsReadThrough(request.headers)
      const found = bypass ? undefined : statusCache.peek(`${ref.queue}:${ref.key}`, include, Date.now())
      if (found) return sendJob(request, reply, found)
      return statusCache.fetch(ref, include, { bypass }).then((fetched) => sendJob(request, reply, fetched))
    },
  })
}

const PLAIN: Include = { data: false, logs: false }

function parseInclude(include: string | undefined): Include {
  return include === undefined ? PLAIN : { data: include.includes('data'), logs: include.includes('logs') }
}

/** Ignored, it would promise what is not kept: a repeat would make a second job. */
function refuseIdempotencyKey(request: FastifyRequest): void {
  if (request.headers['idempotency-key'] === undefined) return
  throw new SluiceError('NOT_IMPLEMENTED', {
    detail:
      'Idempotency-Key is not supported yet. Give the job an opts.jobId of its own: a repeat then finds the job.',
    outcome: 'not_executed',
  })
}

function describeStored(reply: FastifyReply, stored: Stored, job: NewJob) {
  const { queue, key, name, state, timestamp, deduplicated } = stored
  const id = `${queue}:${key}`
  reply.header('location', `/jobs/${deduplicated ? encodeURI(id) : id}`)
  if (!deduplicated) {
    const created = { name: name!, state: state!, timestamp: timestamp! }
    reply.header('etag', etagOf(resourceOfNewJob(stored, created, job.opts)))
    reply.code(201)
  }
  return { id, queue, name, state, createdAt: timestamp === null ? null : rfc3339(timestamp), deduplicated }
}

function sendJob(request: FastifyRequest, reply: FastifyReply, found: Found): void {
  const { job, source, ttlMs, degraded } = found
  if (!job) throw new SluiceError('JOB_NOT_FOUND')
  reply.header('etag', job.etag)
  // Others may keep it, but have to ask here before they use it.
  reply.header('cache-control', 'no-cache')
  const ttlS = Math.floor(ttlMs / 1000)
  const detail = degraded && source !== 'stale' ? '; detail=degraded' : ''
  reply.header('cache-status', cacheStatus[source] + ttlS + detail)
  if (!job.finished) reply.header('retry-after', retryAfterS(job.createdAtMs, job.delayedUntilMs, Date.now()))
  if (isNotModified(request.headers['if-none-match'], job.etag)) {
    reply.code(304).send()
    return
  }
  reply.header('content-type', 'application/json; charset=utf-8')
  reply.send(job.body)
}

/** RFC 9211. */
const cacheStatus: Record<Found['source'], string> = {
  hit: 'sluice; hit; ttl=',
  miss: 'sluice; fwd=miss; ttl=',
  bypass: 'sluice; fwd=request; ttl=',
  stale: 'sluice; fwd=stale; detail=redis-unavailable; ttl=',
}
