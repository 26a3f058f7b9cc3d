/** `POST /queues/:queue/leases`, `POST /leases/settle` and `POST /leases/extend`: HTTP workers take, settle and extend jobs. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { assertQueueAccess } from '../auth/access.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import type { LeasedJob } from '../dispatch/leased-job.ts'
import {
  BODY_PROBLEMS,
  type ErrorCode,
  GUARD_PROBLEMS,
  problemResponses,
  REDIS_PROBLEMS,
  SluiceError,
  toProblem,
} from '../errors.ts'
import { QueueParams, queueIn } from '../queues/schemas.ts'
import type { RedisClock } from '../redis/redis-clock.ts'
import { extendBodyShape, type LeaseItems, settleBodyShape } from './lease-items.ts'
import type { WhyUnsettleable } from './lease-limit.ts'
import type { RenderJobs } from './lease-response.ts'
import type { ExtendRequest, ItemResult, LeaseSettler } from './lease-settler.ts'
import {
  ExtendBody,
  ExtendResponse,
  LEASE_MS,
  LeasedJobs,
  SettleBody,
  SettleResponse,
  TakeBody,
} from './schemas.ts'

export interface LeaseRoutesDeps {
  dispatcher: Pick<Dispatcher, 'take' | 'giveBack' | 'isClosing'>
  settler: LeaseSettler
  items: LeaseItems
  /** Validate the envelopes; `items` validates the items one by one. */
  validators: { settle: BodyValidator; extend: BodyValidator }
  /** Most bytes of a body with items, and of an item. */
  limits: { bodyMaxBytes: number; itemMaxBytes: number }
  renderJobs: RenderJobs
  clock: Pick<RedisClock, 'nowMs'>
  whyUnsettleable: WhyUnsettleable
}

type BodyValidator = (value: unknown) => { value: unknown } | { error: Error }

const PROBLEMS: ErrorCode[] = ['INVALID_NAME', ...GUARD_PROBLEMS, ...BODY_PROBLEMS, ...REDIS_PROBLEMS]

export async function leaseRoutes(instance: FastifyInstance, deps: LeaseRoutesDeps): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { dispatcher, settler, clock, whyUnsettleable, validators, limits } = deps

  app.post('/queues/:queue/leases', {
    config: { scope: 'work' },
    schema: {
      operationId: 'takeLeases',
      summary: 'Take jobs',
      description:
        "Leases jobs to the worker. A lease is BullMQ's own lock, so native workers may work the same queue. A job whose lease " +
        'expires goes to another worker. If the client disconnects while it waits, it takes no job.',
      tags: ['work'],
      params: QueueParams,
      body: TakeBody,
      response: {
        200: { ...LeasedJobs, description: 'The leased jobs.' },
        204: { type: 'null', description: 'No job was available.' },
        ...problemResponses(['QUEUE_NOT_FOUND', 'TOO_MANY_WAITS', ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const queue = queueIn(request.params)
      assertQueueAccess(request.access, queue)
      const { max = 1, wait = 0, leaseMs = LEASE_MS, worker } = request.body
      const watch = wait === 0 ? reply.beginDelivery({ queue }) : reply.beginWait({ queue })
      const taking = { queue, max, leaseMs, worker, whyUnsettleable }
      const { jobs } = await dispatcher.take(taking, wait * 1_000, watch.signal)
      if (dispatcher.isClosing()) reply.header('connection', 'close')
      return sendTaken(reply, watch, jobs, leaseMs, deps)
    },
  })

  app.post('/leases/settle', {
    config: { scope: 'work', bodyShape: settleBodyShape(limits.itemMaxBytes) },
    bodyLimit: limits.bodyMaxBytes,
    validatorCompiler: () => validators.settle,
    schema: {
      operationId: 'settleLeases',
      summary: 'Settle jobs, and take the next',
      description:
        'Reports the outcome of leased jobs. Each item succeeds or fails alone. With `next`, a worker needs one request per job.',
      tags: ['work'],
      body: SettleBody,
      response: {
        200: { ...SettleResponse, description: 'All jobs are settled.' },
        207: { ...SettleResponse, description: 'Some jobs are not settled; see `results`.' },
        ...problemResponses(['QUEUE_NOT_FOUND', 'TOO_MANY_WAITS', ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { items, next } = request.body
      const { max = 1, wait = 0, leaseMs = LEASE_MS, worker, queue } = next ?? {}
      const watched = queue === undefined ? {} : { queue }
      const watch = wait === 0 ? reply.beginDelivery(watched) : reply.beginWait(watched)
      const { results, jobs } = await settler.settle(
        deps.items.toSettle(items),
        next && { request: { queue, max, leaseMs, worker, whyUnsettleable }, waitMs: wait * 1_000 },
        request.access,
        watch.signal,
      )
      setStatus(reply, results)
      if (dispatcher.isClosing()) reply.header('connection', 'close')
      // The items are settled, so their results are sent even if the jobs may not be.
      const rendered = handOut(reply, watch, jobs, leaseMs, deps) ?? ''
      return sendJson(reply, `{"results":${JSON.stringify(results.map(toResult))},"jobs":[${rendered}]}`)
    },
  })

  app.post('/leases/extend', {
    config: { scope: 'work', bodyShape: extendBodyShape(limits.itemMaxBytes) },
    bodyLimit: limits.bodyMaxBytes,
    validatorCompiler: () => validators.extend,
    schema: {
      operationId: 'extendLeases',
      summary: 'Extend leases',
      description: 'Extends leases, and optionally reports progress. Each item succeeds or fails alone.',
      tags: ['work'],
      body: ExtendBody,
      response: {
        200: { ...ExtendResponse, description: 'All leases are extended.' },
        207: { ...ExtendResponse, description: 'Some leases are lost; nothing was written for those jobs.' },
        ...problemResponses(PROBLEMS),
      },
    },
    handler: async (request, reply) => {
      const items = deps.items.toExtend(request.body.items)
      const nowMs = clock.nowMs()
      const results = await settler.extend(items, request.access)
      setStatus(reply, results)
      return { results: results.map((result, index) => toExtended(result, index, items[index]!, nowMs)) }
    },
  })
}

type ClientWatch = ReturnType<FastifyReply['beginWait']>

/** Throws what `watch` refuses, or OVERLOADED. */
function sendTaken(
  reply: FastifyReply,
  watch: ClientWatch,
  jobs: LeasedJob[],
  leaseMs: number,
  deps: LeaseRoutesDeps,
): FastifyReply {
  const rendered = handOut(reply, watch, jobs, leaseMs, deps)
  const refusal = watch.refusal()
  if (refusal) throw refusal
  if (jobs.length === 0 || watch.signal.aborted) return reply.code(204).send(null)
  if (rendered === undefined) throw new SluiceError('OVERLOADED', { outcome: 'not_executed' })
  return sendJson(reply, `{"jobs":[${rendered}]}`)
}

/**
 * The jobs as JSON, without brackets. `undefined`, and the jobs are given back: the client has gone, its key no longer
 * permits them, or too many bytes wait for clients. They are also given back if the client does not receive them whole.
 */
function handOut(
  reply: FastifyReply,
  watch: ClientWatch,
  jobs: LeasedJob[],
  leaseMs: number,
  { dispatcher, renderJobs }: LeaseRoutesDeps,
): string | undefined {
  const [first] = jobs
  if (!first) return ''
  const mayReceive = watch.canDeliver() && reply.request.access.canAccessQueue(first.queue)
  const rendered = mayReceive ? renderJobs(jobs, leaseMs) : undefined
  if (rendered === undefined || !reply.canBuffer(rendered.length)) {
    dispatcher.giveBack(first, jobs)
    return undefined
  }
  watch.signal.addEventListener('abort', () => dispatcher.giveBack(first, jobs), { once: true })
  return rendered
}

function sendJson(reply: FastifyReply, json: string): FastifyReply {
  return reply.header('content-type', 'application/json; charset=utf-8').send(json)
}

function setStatus(reply: FastifyReply, results: ItemResult[]): void {
  const problems = results.flatMap((result) => ('error' in result ? [toProblem(result.error)] : []))
  reply.code(problems.length === 0 ? 200 : 207)
  if (problems.some(({ retryable }) => retryable)) reply.header('retry-after', 1)
}

function toResult(result: ItemResult, index: number) {
  if (!('error' in result)) return { index, status: 200, id: result.id }
  const problem = toProblem(result.error)
  // Pointers refer to the body of the request.
  const errors = problem.errors?.map((field) => ({ ...field, pointer: `/items/${index}${field.pointer}` }))
  return {
    index,
    status: problem.status,
    ...(result.id === undefined ? {} : { id: result.id }),
    error: errors ? { ...problem, errors } : problem,
  }
}

function toExtended(result: ItemResult, index: number, item: ExtendRequest | SluiceError, nowMs: number) {
  const extended = toResult(result, index)
  if ('error' in result || item instanceof SluiceError) return extended
  return { ...extended, expiresAt: new Date(nowMs + item.extension.leaseMs).toISOString() }
}
