/** `POST /jobs…`: enqueue one, enqueue many. Parse, one call of the domain, answer. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { assertQueueAccess } from '../../auth/access.ts'
import type { Config } from '../../config/schema.ts'
import {
  BODY_PROBLEMS,
  type ErrorCode,
  GUARD_PROBLEMS,
  problemResponses,
  REDIS_PROBLEMS,
} from '../../errors.ts'
import { etagOfNewJob, resourceOfNewJob, rfc3339 } from '../status/job-resource.ts'
import { waitOf } from '../status/polling.ts'
import type { AddAndWait, WaitedFor } from './add-and-wait.ts'
import type { AddBatch } from './add-batch.ts'
import type { Enqueuer, Stored } from './enqueuer.ts'
import { idempotencyKeyOf } from './idempotency.ts'
import type { NewJob } from './new-job.ts'
import {
  AddHeaders,
  AddQuery,
  BatchBody,
  BatchHeaders,
  BatchResult,
  NewJobBody,
  StoredJob,
} from './schemas.ts'

export interface JobRoutes {
  config: Config
  enqueuer: Enqueuer
  addAndWait: AddAndWait
  addBatch: AddBatch
  toNewJob(body: NewJobBody, idempotency?: NewJob['idempotency']): NewJob
  /** Checks the frame of a batch; its items are checked one by one. */
  batchValidator(value: unknown): { value: unknown } | { error: Error }
}

const header = (description: string) => ({ type: 'string', description })
const tagged = {
  ETag: header('Strong; for If-None-Match.'),
  'X-Request-Id': header('The id of this request.'),
}
const located = {
  ...tagged,
  Location: header('Where to follow the job.'),
  'Preference-Applied': header('RFC 7240: the wait that was granted.'),
}

const replayed = {
  ...located,
  'Idempotency-Replayed': header('`true` where an Idempotency-Key led to the job.'),
}
/** What may become of a job that is stored in Redis, beyond what any command may end in. */
const ENQUEUE_PROBLEMS: ErrorCode[] = ['IDEMPOTENCY_KEY_REUSED', 'NOT_REPLICATED']

export async function jobRoutes(instance: FastifyInstance, deps: JobRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { config, enqueuer, addAndWait, addBatch, toNewJob, batchValidator } = deps

  app.post('/jobs', {
    config: { scope: 'enqueue' },
    bodyLimit: config.BODY_LIMIT,
    schema: {
      operationId: 'addJob',
      summary: 'Enqueue a job',
      description:
        'Answered only after Redis has answered for this very job; with `wait`, or `Prefer: wait=N`, once it has finished or ' +
        'the time is up. A client that leaves cancels nothing.',
      tags: ['jobs'],
      querystring: AddQuery,
      headers: AddHeaders,
      body: NewJobBody,
      response: {
        201: { ...StoredJob, description: 'Stored.', headers: located },
        200: {
          ...StoredJob,
          description:
            'It was there already (opts.jobId, opts.deduplication or Idempotency-Key): the id is of that job.',
          headers: replayed,
        },
        ...problemResponses([
          'INVALID_NAME',
          'INVALID_OPTION',
          'QUEUE_NOT_FOUND',
          ...ENQUEUE_PROBLEMS,
          ...GUARD_PROBLEMS,
          ...BODY_PROBLEMS,
          ...REDIS_PROBLEMS,
        ]),
      },
    },
    handler: (request, reply) => {
      const job = toNewJob(request.body, idempotencyOf(request))
      assertQueueAccess(request.access, job.queue)
      const wait = waitOf(request, reply)
      if (!wait) return enqueuer.add(job).then((stored) => describeStored(reply, stored, job))
      const onWait = (leave: () => void) => reply.raw.once('close', leave)
      return addAndWait({ job, ...wait, onWait }).then((waited) => sendWaited(reply, waited, job))
    },
  })

  app.post('/jobs/batch', {
    config: { scope: 'enqueue' },
    bodyLimit: config.BATCH_BODY_LIMIT,
    validatorCompiler: ({ httpPart }) => (httpPart === 'body' ? batchValidator : (value) => ({ value })),
    schema: {
      operationId: 'addJobs',
      summary: 'Enqueue many jobs, each standing alone',
      description:
        'One bad item never costs the others. Jobs of one queue are one Redis command, 200 at most.',
      tags: ['jobs'],
      headers: BatchHeaders,
      body: BatchBody,
      response: {
        201: { ...BatchResult, description: 'All are there.' },
        207: { ...BatchResult, description: 'Some are not.' },
        ...problemResponses([...ENQUEUE_PROBLEMS, ...GUARD_PROBLEMS, ...BODY_PROBLEMS, ...REDIS_PROBLEMS]),
        422: { ...BatchResult, description: 'None was stored; each says why.' },
      },
    },
    handler: async (request, reply) => {
      const { status, body } = await addBatch(request.body.jobs, request.access, idempotencyOf(request)?.key)
      return reply.code(status).send(body)
    },
  })
}

/** Of the API key that it came with: those of two never meet. */
function idempotencyOf({ headers, access }: FastifyRequest): NewJob['idempotency'] {
  const key = idempotencyKeyOf(headers['idempotency-key'])
  return key === undefined ? undefined : { owner: access.keyId, key }
}

/** The job as it is after the wait, in the bytes of `GET /jobs/:id`, and how it was stored. */
function sendWaited(reply: FastifyReply, { stored, job }: WaitedFor, newJob: NewJob): void {
  const described = describeStored(reply, stored, newJob)
  if (!job) {
    reply.send(described)
    return
  }
  reply.header('etag', job.etag).header('content-type', 'application/json; charset=utf-8')
  reply.send(`${job.body.slice(0, -1)},"deduplicated":${stored.deduplicated}}`)
}

function describeStored(reply: FastifyReply, stored: Stored, job: NewJob) {
  const { queue, key, name, state, timestamp, deduplicated } = stored
  const id = `${queue}:${key}`
  if (stored.replayed) reply.header('idempotency-replayed', 'true')
  reply.header('location', `/jobs/${deduplicated ? encodeURI(id) : id}`)
  if (!deduplicated) {
    const created = { name: name!, state: state!, timestamp: timestamp! }
    reply.header('etag', etagOfNewJob(resourceOfNewJob(stored, created, job.opts)))
    reply.code(201)
  }
  return { id, queue, name, state, createdAt: timestamp === null ? null : rfc3339(timestamp), deduplicated }
}
