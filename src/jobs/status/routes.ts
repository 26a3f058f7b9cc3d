/** `GET /jobs…`: one job, many, a page of a queue. Parse, one call of the domain, answer. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { type Access, assertQueueAccess } from '../../auth/access.ts'
import { GUARD_PROBLEMS, problemResponses, REDIS_PROBLEMS, SluiceError } from '../../errors.ts'
import { type JobRef, parseJobId } from '../job-id.ts'
import type { GetMany, ManyResult } from './get-many.ts'
import type { JobLister, ListRequest } from './job-lister.ts'
import type { Include } from './job-reader.ts'
import { isNotModified, retryAfterS, waitOf, wantsReadThrough } from './polling.ts'
import { Job, JobHeaders, JobList, JobParams, JobQuery, JobsQuery, MAX_JOBS, PAGE } from './schemas.ts'
import type { Found, StatusCache } from './status-cache.ts'
import type { Waiters, WaitRequest } from './waiters.ts'

export interface StatusRoutes {
  /** Of an id without a queue. */
  defaultQueue: string
  statusCache: StatusCache
  waiters: Waiters
  findMany: GetMany
  jobLister: JobLister
}

const header = (description: string) => ({ type: 'string', description })
const polled = {
  ETag: header('Strong; for If-None-Match.'),
  'X-Request-Id': header('The id of this request.'),
  'Cache-Status': header(
    'RFC 9211: whether the answer came out of memory, and for how long it is fresh, seconds. `detail=degraded`: changes are not heard at the moment, so it may be a second old.',
  ),
  'Retry-After': header('Seconds until it is worth asking again; missing once all has finished.'),
  'Preference-Applied': header('RFC 7240: the wait that was granted.'),
}
const jsonOf = (schema: object) => ({ content: { 'application/json': { schema } } })

export async function statusRoutes(instance: FastifyInstance, deps: StatusRoutes): Promise<void> {
  const app = instance.withTypeProvider<TypeBoxTypeProvider>()
  const { defaultQueue, statusCache, waiters, findMany, jobLister } = deps

  app.get('/jobs/:id', {
    config: { scope: 'read' },
    schema: {
      operationId: 'getJob',
      summary: 'Ask for a job, or wait for it',
      description:
        'Served from memory, where a change throws it out within 100 ms, whoever made it. `Retry-After` says when to ask ' +
        'again; with If-None-Match an unchanged job costs nothing; with `wait` there is no need to ask again.',
      tags: ['jobs'],
      params: JobParams,
      querystring: JobQuery,
      headers: JobHeaders,
      response: {
        200: { description: 'The job.', headers: polled, ...jsonOf(Job) },
        304: { description: 'Unchanged since the ETag in If-None-Match.', headers: polled, type: 'null' },
        ...problemResponses(['JOB_NOT_FOUND', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]),
      },
    },
    // No async: what is in memory goes out without a promise in between.
    handler: (request, reply) => {
      const include = parseInclude(request.query.include)
      const ref = parseJobId(request.params.id, defaultQueue)
      if (!ref || !request.access.canAccessQueue(ref.queue)) throw new SluiceError('JOB_NOT_FOUND')
      const wait = waitOf(request, reply)
      if (wait) return waitFor(request, reply, { ref, include, ...wait })
      const bypass = wantsReadThrough(request.headers)
      const found = bypass ? undefined : statusCache.peek(`${ref.queue}:${ref.key}`, include, Date.now())
      if (found) return sendJob(request, reply, found)
      return statusCache.fetch(ref, include, { bypass }).then((fetched) => sendJob(request, reply, fetched))
    },
  })

  function waitFor(request: FastifyRequest, reply: FastifyReply, wait: WaitRequest): Promise<void> {
    const { answer, leave } = waiters.wait({ ...wait, etag: request.headers['if-none-match'] })
    reply.raw.on('close', leave)
    return answer.then((found) => sendJob(request, reply, found))
  }

  app.get('/jobs', {
    config: { scope: 'read' },
    schema: {
      operationId: 'listJobs',
      summary: 'Ask for many jobs by id, or for a page of a queue',
      description:
        '`ids`: those in memory from there, the others in one write to Redis. Otherwise the jobs of `queue`, newest first, ' +
        'one Redis command a page; without `state` one state after the other: delayed, waiting-children, prioritized, waiting, ' +
        'active, failed, completed.',
      tags: ['jobs'],
      querystring: JobsQuery,
      headers: JobHeaders,
      response: {
        200: { description: 'The jobs.', headers: polled, ...jsonOf(JobList) },
        304: {
          description: 'None of `ids` has changed since the ETag in If-None-Match.',
          headers: polled,
          type: 'null',
        },
        ...problemResponses(['INVALID_NAME', 'QUEUE_NOT_FOUND', ...GUARD_PROBLEMS, ...REDIS_PROBLEMS]),
      },
    },
    handler: async (request, reply) => {
      const { ids } = request.query
      if (ids === undefined) return jobLister.page(parsePage(request, defaultQueue))
      const refs = parseIds(request, defaultQueue)
      const include = parseInclude(request.query.include)
      return sendMany(request, reply, await findMany(refs, include, wantsReadThrough(request.headers)))
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
  if (include !== undefined) throw invalid('include', 'goes with ids only.')
  assertQueueAccess(access, queue)
  return { queue, state, limit, cursor }
}

function parseIds({ query, access }: JobsRequest, defaultQueue: string) {
  const { ids = '', queue, state, limit, cursor } = query
  for (const [name, value] of Object.entries({ queue, state, limit, cursor })) {
    if (value !== undefined) throw invalid(name, 'does not go with ids: an id names its queue.')
  }
  const all = ids.split(',')
  if (all.length > MAX_JOBS) throw invalid('ids', `has ${all.length} ids, and ${MAX_JOBS} is the most.`)
  return all.map((id): JobRef | undefined => {
    const ref = parseJobId(id, defaultQueue)
    return ref && access.canAccessQueue(ref.queue) ? ref : undefined
  })
}

function invalid(name: string, detail: string): SluiceError {
  return new SluiceError('INVALID_REQUEST', { errors: [{ pointer: `?${name}`, detail }] })
}

function sendJob(request: FastifyRequest, reply: FastifyReply, found: Found): void {
  const { job, source, ttlMs, degraded } = found
  if (!job) throw new SluiceError('JOB_NOT_FOUND')
  setCacheStatus(reply, source, ttlMs, degraded)
  if (!job.finished) reply.header('retry-after', retryAfterS(job.createdAtMs, job.delayedUntilMs, Date.now()))
  send(request, reply, job)
}

function sendMany(request: FastifyRequest, reply: FastifyReply, many: ManyResult): void {
  const nowMs = Date.now()
  const waits = many.found.flatMap(({ job }) =>
    job && !job.finished ? [retryAfterS(job.createdAtMs, job.delayedUntilMs, nowMs)] : [],
  )
  if (waits.length > 0) reply.header('retry-after', Math.min(...waits))
  const { source = 'hit' } = many.found.find((one) => one.source !== 'hit') ?? {}
  const ttlMs = many.found.length === 0 ? 0 : Math.min(...many.found.map((one) => one.ttlMs))
  setCacheStatus(
    reply,
    source,
    ttlMs,
    many.found.some(({ degraded }) => degraded),
  )
  send(request, reply, many)
}

/** The bytes, or that they are those the client has. */
function send(
  request: FastifyRequest,
  reply: FastifyReply,
  { body, etag }: { body: string; etag: string },
): void {
  reply.header('etag', etag)
  // Others may keep it, but have to ask here before they use it.
  reply.header('cache-control', 'no-cache')
  if (isNotModified(request.headers['if-none-match'], etag)) {
    reply.code(304).send()
    return
  }
  reply.header('content-type', 'application/json; charset=utf-8')
  reply.send(body)
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

/** RFC 9211. */
const cacheStatus: Record<Found['source'], string> = {
  hit: 'sluice; hit; ttl=',
  miss: 'sluice; fwd=miss; ttl=',
  bypass: 'sluice; fwd=request; ttl=',
  stale: 'sluice; fwd=stale; detail=redis-unavailable; ttl=',
}
