/** `POST /jobs` and `POST /jobs/batch`. */
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
import { addMember } from '../../json/json-writer.ts'
import { timeWithin } from '../../rfc3339.ts'
import { jobUrl } from '../job-id.ts'
import { etagOfNewJob } from '../status/job-resource.ts'
import { waitOf } from '../status/polling.ts'
import { type AddAndWait, type AddAndWaitResult, resourceOfEnqueued, type WaitTerms } from './add-and-wait.ts'
import type { AddBatch } from './add-batch.ts'
import type { EnqueuedJob } from './enqueue-outcome.ts'
import type { Enqueuer } from './enqueuer.ts'
import { type ClientKey, parseIdempotencyKey } from './idempotency.ts'
import type { NewJob } from './new-job.ts'
import {
  AddHeaders,
  AddQuery,
  BatchBody,
  BatchHeaders,
  BatchResult,
  batchShape,
  NewJobBody,
  newJobShape,
  StoredJob,
} from './schemas.ts'
import type { ToNewJob } from './to-new-job.ts'

export interface JobRoutes {
  config: Config
  enqueuer: Enqueuer
  addAndWait: AddAndWait
  addBatch: AddBatch
  toNewJob: ToNewJob
  /** Validates the envelope of a batch; `addBatch` validates the items one by one. */
  batchValidator(value: unknown): { value: unknown } | { error: Error }
}

const header = (description: string) => ({ type: 'string', description })
const tagged = {
  ETag: header('Strong ETag of the job, for If-None-Match.'),
  'X-Request-Id': header('Id of this request.'),
}
const located = {
  ...tagged,
  Location: header('URL of the job, percent-encoded; absent if its id is too long for a URL.'),
  'Preference-Applied': header('The wait that was granted, in seconds (RFC 7240).'),
}

const replayable = {
  ...located,
  'Idempotency-Replayed': header(
    '`true` when this is the job of an earlier request with the same Idempotency-Key.',
  ),
}

/** Problems of an enqueue, beyond those of every Redis command. */
const ENQUEUE_PROBLEMS: ErrorCode[] = ['IDEMPOTENCY_KEY_REUSED', 'NOT_REPLICATED']

export async function jobRoutes(instance: FastifyInstance, deps: JobRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { config, enqueuer, addAndWait, addBatch, toNewJob, batchValidator } = deps

  app.post('/jobs', {
    config: { scope: 'enqueue', countsBytes: true, bodyShape: newJobShape },
    bodyLimit: config.BODY_LIMIT,
    schema: {
      operationId: 'addJob',
      summary: 'Enqueue a job',
      description:
        'Responds after Redis has stored the job. With `wait`, or `Prefer: wait=N`, responds when the job has finished or the ' +
        'time is up; the API key then needs the scope `read` too. Disconnecting does not cancel the job.',
      tags: ['jobs'],
      querystring: AddQuery,
      headers: AddHeaders,
      body: NewJobBody,
      response: {
        201: { ...StoredJob, description: 'The job was stored.', headers: located },
        200: {
          ...StoredJob,
          description:
            'The job exists already (opts.jobId, opts.deduplication or Idempotency-Key); nothing was stored. `id` is its id.',
          headers: replayable,
        },
        ...problemResponses([
          'INVALID_NAME',
          'INVALID_OPTION',
          'QUEUE_NOT_FOUND',
          'TOO_MANY_WAITS',
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
      if (wait) return answerAfterWait(request, reply, addAndWait, job, wait)
      const { opts } = job
      return enqueuer.add(job).then((enqueued) => describeEnqueued(reply, enqueued, opts))
    },
  })

  app.post('/jobs/batch', {
    config: { scope: 'enqueue', bodyShape: batchShape(config.BODY_LIMIT) },
    bodyLimit: config.BATCH_BODY_LIMIT,
    validatorCompiler: ({ httpPart }) => (httpPart === 'body' ? batchValidator : (value) => ({ value })),
    schema: {
      operationId: 'addJobs',
      summary: 'Enqueue a batch of independent jobs',
      description:
        'A refused job does not affect the others, also one that is too large or nested too deeply. The jobs of a queue are written in commands of up to ENQUEUE_BATCH_MAX (200) jobs.',
      tags: ['jobs'],
      headers: BatchHeaders,
      body: BatchBody,
      response: {
        201: { ...BatchResult, description: 'Every job exists.' },
        207: { ...BatchResult, description: 'Some jobs failed; see `results`.' },
        ...problemResponses([...ENQUEUE_PROBLEMS, ...GUARD_PROBLEMS, ...BODY_PROBLEMS, ...REDIS_PROBLEMS]),
        422: { ...BatchResult, description: 'Every job failed; see `results`.' },
      },
    },
    handler: async (request, reply) => {
      const { status, body } = await addBatch(request.body.jobs, request.access, idempotencyOf(request)?.key)
      return reply.code(status).send(body)
    },
  })
}

/** Each API key has idempotency keys of its own. */
function idempotencyOf({ headers, access }: FastifyRequest): ClientKey | undefined {
  const key = parseIdempotencyKey(headers['idempotency-key'])
  return key === undefined ? undefined : { owner: access.keyId, key }
}

/** Stores the job, and sends it as it is after the wait. */
function answerAfterWait(
  request: FastifyRequest,
  reply: FastifyReply,
  addAndWait: AddAndWait,
  job: NewJob,
  terms: Omit<WaitTerms, 'signal'>,
): Promise<void> {
  reply.requireScope('read')
  const watch = reply.beginWait({ queue: job.queue, scope: 'read' })
  // Its bytes are not needed while the request waits.
  request.body = undefined
  const { opts } = job
  return addAndWait({ job, ...terms, signal: watch.signal }).then((result) =>
    // The job is stored, so a key that was revoked meanwhile gets its id, as without a wait.
    sendAfterWait(reply, watch.canDeliver() ? result : { enqueued: result.enqueued, job: undefined }, opts),
  )
}

/** The body of `GET /jobs/{id}` after the wait, plus `deduplicated`. Returns the reply if it is sent later. */
function sendAfterWait(
  reply: FastifyReply,
  { enqueued, job }: AddAndWaitResult,
  opts: NewJob['opts'],
): PromiseLike<void> | undefined {
  const described = describeEnqueued(reply, enqueued, opts)
  if (!job) {
    reply.send(described)
    return undefined
  }
  reply.header('etag', job.etag).header('content-type', 'application/json; charset=utf-8')
  return reply.sendCounted(addMember(job.body, `"deduplicated":${enqueued.deduplicated}`))
}

/** Sets status and headers, and returns the body. */
function describeEnqueued(reply: FastifyReply, enqueued: EnqueuedJob, opts: NewJob['opts']) {
  const { queue, key, name, state, timestamp, deduplicated } = enqueued
  if (enqueued.replayed) reply.header('idempotency-replayed', 'true')
  const url = jobUrl(enqueued)
  if (url !== undefined) reply.header('location', url)
  if (!deduplicated) {
    reply.header('etag', etagOfNewJob(resourceOfEnqueued(enqueued, opts)))
    reply.code(201)
  }
  return {
    id: `${queue}:${key}`,
    queue,
    name,
    state,
    createdAt: timestamp === null ? null : timeWithin(timestamp),
    deduplicated,
  }
}
