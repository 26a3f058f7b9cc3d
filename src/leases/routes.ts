/** `POST /queues/:queue/leases`, `POST /leases/settle`, `POST /leases/extend`. Parse, one call of the domain, answer. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply } from 'fastify'
import { assertQueueAccess } from '../auth/access.ts'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import type { LeasedJob } from '../dispatch/leased-job.ts'
import {
  BODY_PROBLEMS,
  type ErrorCode,
  GUARD_PROBLEMS,
  problemResponses,
  REDIS_PROBLEMS,
  toProblem,
} from '../errors.ts'
import type { RenderLease } from './lease-response.ts'
import type { ItemResult, LeaseSettler } from './lease-settler.ts'
import {
  ExtendBody,
  ExtendResult,
  LEASE_MS,
  LeasedJobs,
  LeaseParams,
  SettleBody,
  type SettleItem,
  SettleResult,
  TakeBody,
} from './schemas.ts'

export interface LeaseRoutes {
  line: Dispatcher
  settler: LeaseSettler
  describe: RenderLease
}

const PROBLEMS: ErrorCode[] = ['INVALID_NAME', ...GUARD_PROBLEMS, ...BODY_PROBLEMS, ...REDIS_PROBLEMS]

export async function leaseRoutes(instance: FastifyInstance, deps: LeaseRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { line, settler, describe } = deps

  app.post('/queues/:queue/leases', {
    config: { scope: 'work' },
    schema: {
      operationId: 'takeLeases',
      summary: 'Take jobs to work on',
      description:
        "The lease is BullMQ's own lock, so native workers may work the same queue. A client that hangs up while it waits takes " +
        'no job with it; a job whose lease runs out goes to another worker.',
      tags: ['work'],
      params: LeaseParams,
      body: TakeBody,
      response: {
        200: { ...LeasedJobs, description: 'Jobs, now held.' },
        204: { type: 'null', description: 'There was none.' },
        ...problemResponses(['QUEUE_NOT_FOUND', ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { queue } = request.params
      assertQueueAccess(request.access, queue)
      const { max = 1, wait = 0, leaseMs = LEASE_MS, worker } = request.body
      const signal = signalOf(reply)
      const { jobs } = await line.take({ queue, max, leaseMs, worker }, wait * 1_000, signal)
      if (line.isClosing()) reply.header('connection', 'close')
      if (jobs.length === 0) return reply.code(204).send(null)
      sendJobs(reply, '{', jobs, leaseMs, signal)
      return reply
    },
  })

  app.post('/leases/settle', {
    config: { scope: 'work' },
    schema: {
      operationId: 'settleLeases',
      summary: 'Say what became of jobs, and take the next',
      description: 'Each item stands alone. With `next` a unit of work is one round trip.',
      tags: ['work'],
      body: SettleBody,
      response: {
        200: { ...SettleResult, description: 'All are settled.' },
        207: { ...SettleResult, description: 'Some are not: their leases were lost, or cannot be read.' },
        ...problemResponses(['QUEUE_NOT_FOUND', ...PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { items, next } = request.body
      const { max = 1, wait = 0, leaseMs = LEASE_MS, worker, queue } = next ?? {}
      const signal = signalOf(reply)
      const { results, jobs } = await settler.settle(
        items.map((item) => ({ lease: item.lease, outcome: outcomeOf(item) })),
        next && { request: { queue, max, leaseMs, worker }, waitMs: wait * 1_000 },
        request.access,
        signal,
      )
      setStatus(reply, results)
      if (line.isClosing()) reply.header('connection', 'close')
      sendJobs(reply, `{"results":${JSON.stringify(results.map(toResult))},`, jobs, leaseMs, signal)
      return reply
    },
  })

  app.post('/leases/extend', {
    config: { scope: 'work' },
    schema: {
      operationId: 'extendLeases',
      summary: 'Keep jobs, and tell how they get on',
      tags: ['work'],
      body: ExtendBody,
      response: {
        200: { ...ExtendResult, description: 'All are still held.' },
        207: { ...ExtendResult, description: 'Some are not; of these nothing was written.' },
        ...problemResponses(PROBLEMS),
      },
    },
    handler: async (request, reply) => {
      const { items } = request.body
      const extensions = items.map(({ lease, leaseMs = LEASE_MS, progress, log }) => ({
        lease,
        extension: { leaseMs, progress, log },
      }))
      const from = Date.now()
      const results = await settler.extend(extensions, request.access)
      setStatus(reply, results)
      return {
        results: results.map((result, index) => ({
          ...toResult(result, index),
          ...('error' in result
            ? {}
            : { expiresAt: new Date(from + extensions[index]!.extension.leaseMs).toISOString() }),
        })),
      }
    },
  })

  /** `before`: the beginning of the answer. Jobs that do not reach the client whole go back: it cannot know of them. */
  function sendJobs(
    reply: FastifyReply,
    before: string,
    jobs: LeasedJob[],
    leaseMs: number,
    signal: AbortSignal,
  ): void {
    const told = jobs.map((job) => describe(job, leaseMs)).join()
    const [first] = jobs
    if (first) signal.addEventListener('abort', () => line.giveBack(first, jobs), { once: true })
    reply.header('content-type', 'application/json; charset=utf-8').send(`${before}"jobs":[${told}]}`)
  }
}

/** Aborted when the client leaves before it has its answer whole. */
function signalOf({ raw, request }: FastifyReply): AbortSignal {
  const controller = new AbortController()
  const leave = () => controller.abort()
  const { socket } = request.raw
  raw.once('close', leave)
  raw.once('finish', () => {
    // Node says so as well when what it was still writing has failed.
    if (socket.errored) leave()
    else raw.removeListener('close', leave)
  })
  return controller.signal
}

function outcomeOf({ outcome, result, error, unrecoverable = false, delay = 0 }: SettleItem): JobOutcome {
  switch (outcome) {
    case 'complete':
      return { outcome, result: result ?? null }
    case 'fail':
      return { outcome, error: { message: 'failed', ...error }, unrecoverable }
    case 'retry':
      return { outcome, delayMs: delay }
    case 'release':
      return { outcome }
  }
}

function setStatus(reply: FastifyReply, results: ItemResult[]): void {
  const problems = results.flatMap((result) => ('error' in result ? [toProblem(result.error)] : []))
  reply.code(problems.length === 0 ? 200 : 207)
  if (problems.some(({ retryable }) => retryable)) reply.header('retry-after', 1)
}

function toResult(result: ItemResult, index: number) {
  if (!('error' in result)) return { index, status: 200, id: result.id }
  const problem = toProblem(result.error)
  return {
    index,
    status: problem.status,
    ...(result.id === undefined ? {} : { id: result.id }),
    error: problem,
  }
}
