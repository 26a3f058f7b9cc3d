/** Routes that read jobs: one job, several by id, or a page of a queue. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type Access, assertQueueAccess } from '../../auth/access.ts'
import { GUARD_PROBLEMS, problemResponses, REDIS_PROBLEMS, SluiceError } from '../../errors.ts'
import type { JsonPart } from '../../json/json-writer.ts'
import type { RedisClock } from '../../redis/redis-clock.ts'
import { type JobRef, parseJobId } from '../job-id.ts'
import type { Found } from './cache-entry.ts'
import type { GetMany, ManyJobs } from './get-many.ts'
import type { JobLister, ListRequest } from './job-lister.ts'
import type { Include } from './job-reader.ts'
import { isNotModified, retryAfterS, waitOf, wantsReadThrough } from './polling.ts'
import { Job, JobHeaders, JobList, JobParams, JobQuery, JobsQuery, MAX_JOBS, PAGE } from './schemas.ts'
import type { StatusCache } from './status-cache.ts'
import type { Waiters, WaitRequest } from './waiting/waiters.ts'

export interface StatusRoutes {
  /** Queue of an id that names none. */
  defaultQueue: string
  statusCache: StatusCache
  waiters: Waiters
  getMany: GetMany
  jobLister: JobLister
  clock: Pick<RedisClock, 'nowMs'>
}

const header = (description: string) => ({ type: 'string', description })
const polled = {
  ETag: header('Strong ETag, for If-None-Match.'),
  'X-Request-Id': header('Id of this request.'),
  'Cache-Status': header(
    'RFC 9211: whether the response came from memory, and its remaining freshness in seconds. `detail=degraded`: job events are not being received, so the response may be a second old.',
  ),
  'Retry-After': header('Seconds until the next poll is worthwhile; absent once every job has finished.'),
  'Preference-Applied': header('The wait that was granted, in seconds (RFC 7240).'),
}
const jsonOf = (schema: object) => ({ content: { 'application/json': { schema } } })

export async function statusRoutes(instance: FastifyInstance, deps: StatusRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { defaultQueue, statusCache, waiters, getMany, jobLister, clock } = deps

  app.get('/jobs/:id', {
    config: { scope: 'read', countsBytes: true },
    schema: {
      operationId: 'getJob',
      summary: 'Get a job, or wait for it',
      description:
        'Served from memory; any change, from any source, invalidates it within 100 ms. Poll again after `Retry-After` and ' +
        'send the ETag in If-None-Match, which makes an unchanged job almost free, or use `wait` instead of polling.',
      tags: ['jobs'],
      params: JobParams,
      querystring: JobQuery,
      headers: JobHeaders,
      response: {
        200: { description: 'The job.', headers: polled, ...jsonOf(Job) },
        304: { description: 'Unchanged since the ETag in If-None-Match.', headers: polled, type: 'null' },
        ...problemResponses(['JOB_NOT_FOUND', 'TOO_MANY_WAITS', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]),
      },
    },
    // Not async: a cached job is sent without a promise.
    handler: (request, reply) => {
      const include = parseInclude(request.query.include)
      const ref = parseJobId(request.params.id, defaultQueue)
      if (!ref || !request.access.canAccessQueue(ref.queue)) throw new SluiceError('JOB_NOT_FOUND')
      const wait = waitOf(request, reply)
      if (wait) return waitFor(request, reply, { ref, include, ...wait })
      const bypass = wantsReadThrough(request.headers)
      const found = bypass
        ? undefined
        : statusCache.peek(`${ref.queue}:${ref.key}`, include, performance.now())
      if (found) return sendJob(request, reply, found, clock)
      return statusCache
        .fetch(ref, include, { bypass })
        .then((fetched) => sendJob(request, reply, fetched, clock))
    },
  })

  function waitFor(request: FastifyRequest, reply: FastifyReply, wait: WaitRequest): Promise<void> {
    const watch = reply.beginWait({ queue: wait.ref.queue })
    const { result, leave } = waiters.wait({ ...wait, etag: request.headers['if-none-match'] })
    return watch.until(result, leave).then((found) => sendJob(request, reply, found, clock))
  }

  app.get('/jobs', {
    config: { scope: 'read' },
    schema: {
      operationId: 'listJobs',
      summary: 'Get jobs by id, or list a queue',
      description:
        'With `ids` or `id`, returns these jobs, from memory where possible. Otherwise returns a page of the jobs of `queue`, newest ' +
        'first; without `state` it lists one state after the other: delayed, waiting-children, prioritized, waiting, active, ' +
        'failed, completed.',
      tags: ['jobs'],
      querystring: JobsQuery,
      headers: JobHeaders,
      response: {
        200: { description: 'The jobs.', headers: polled, ...jsonOf(JobList) },
        304: {
          description: 'None of these jobs has changed since the ETag in If-None-Match.',
          headers: polled,
          type: 'null',
        },
        ...problemResponses(['INVALID_NAME', 'QUEUE_NOT_FOUND', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { ids, id } = request.query
      if (ids === undefined && id === undefined)
        return sendPage(reply, await jobLister.pageText(parsePage(request, defaultQueue)))
      const refs = parseIds(request, defaultQueue)
      const include = parseInclude(request.query.include)
      const many = await getMany(refs, include, wantsReadThrough(request.headers))
      return sendMany(request, reply, many, clock)
    },
  })
}

const PLAIN: Include = { data: false, logs: false }

function parseInclude(include: string | undefined): Include {
  return include === undefined ? PLAIN : { data: include.includes('data'), logs: include.includes('logs') }
}

type JobsRequest = { query: JobsQuery; access: Access }

function parsePage({ query, access }: JobsRequest, defaultQueue: string): ListRequest {
  const { queue = defaultQueue, state, limit = PAGE, cursor, include } = query
  if (include !== undefined) throw invalid('include', 'is allowed only together with ids or id.')
  assertQueueAccess(access, queue)
  return { queue, state, limit, cursor }
}

function parseIds({ query, access }: JobsRequest, defaultQueue: string) {
  const { ids, id = [], queue, state, limit, cursor } = query
  for (const [name, value] of Object.entries({ queue, state, limit, cursor })) {
    if (value !== undefined) throw invalid(name, 'cannot be combined with ids, which name their queues.')
  }
  const all = [...(ids?.split(',') ?? []), ...id]
  if (all.length > MAX_JOBS) throw invalid('ids', `has ${all.length} ids; send at most ${MAX_JOBS}.`)
  return all.map((text): JobRef | undefined => {
    const ref = parseJobId(text, defaultQueue)
    return ref && access.canAccessQueue(ref.queue) ? ref : undefined
  })
}

function invalid(name: string, detail: string): SluiceError {
  return new SluiceError('INVALID_REQUEST', { errors: [{ pointer: `?${name}`, detail }] })
}

/** Returns the reply if it is sent later. */
function sendJob(
  request: FastifyRequest,
  reply: FastifyReply,
  found: Found,
  clock: StatusRoutes['clock'],
): PromiseLike<void> | undefined {
  const { job, source, ttlMs, degraded } = found
  if (!job) throw new SluiceError('JOB_NOT_FOUND')
  setCacheStatus(reply, source, ttlMs, degraded)
  if (!job.finished)
    reply.header('retry-after', retryAfterS(job.createdAtMs, job.delayedUntilMs, clock.nowMs()))
  return isUnsent(request, reply, job) ? reply.sendCounted(job.body) : undefined
}

function sendMany(
  request: FastifyRequest,
  reply: FastifyReply,
  many: ManyJobs,
  clock: StatusRoutes['clock'],
): FastifyReply {
  const nowMs = clock.nowMs()
  const retriesS = many.found.flatMap(({ job }) =>
    job && !job.finished ? [retryAfterS(job.createdAtMs, job.delayedUntilMs, nowMs)] : [],
  )
  if (retriesS.length > 0) reply.header('retry-after', Math.min(...retriesS))
  const { source = 'hit' } = many.found.find((one) => one.source !== 'hit') ?? {}
  const ttlMs = many.found.length === 0 ? 0 : Math.min(...many.found.map((one) => one.ttlMs))
  const isDegraded = many.found.some(({ degraded }) => degraded)
  setCacheStatus(reply, source, ttlMs, isDegraded)
  return isUnsent(request, reply, many) ? reply.send(many.body) : reply
}

function sendPage(reply: FastifyReply, body: JsonPart): FastifyReply {
  return reply.header('content-type', 'application/json; charset=utf-8').send(body)
}

/** Sets the headers of the body. False, and 304 is sent: the client has it already. */
function isUnsent(request: FastifyRequest, reply: FastifyReply, { etag }: { etag: string }): boolean {
  reply.header('etag', etag)
  // Caches may store it, but must revalidate it before use.
  reply.header('cache-control', 'no-cache')
  if (isNotModified(request.headers['if-none-match'], etag)) {
    reply.code(304).send()
    return false
  }
  reply.header('content-type', 'application/json; charset=utf-8')
  return true
}

function setCacheStatus(
  reply: FastifyReply,
  source: Found['source'],
  ttlMs: number,
  degraded: boolean,
): void {
  const detail = degraded && source !== 'stale' ? '; detail=degraded' : ''
  reply.header('cache-status', cacheStatus[source] + Math.floor(ttlMs / 1000) + detail)
}

/** The start of the header (RFC 9211), up to the freshness in seconds. */
const cacheStatus: Record<Found['source'], string> = {
  hit: 'sluice; hit; ttl=',
  miss: 'sluice; fwd=miss; ttl=',
  bypass: 'sluice; fwd=request; ttl=',
  stale: 'sluice; fwd=stale; detail=redis-unavailable; ttl=',
}
