/** The upper bound: Fastify with the same routes and schemas and no work behind them. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify from 'fastify'
import { NewJobBody, StoredJob } from '../../src/jobs/enqueue/schemas.ts'
import { serveTarget } from './serve.ts'

const app = Fastify({ logger: false }).withTypeProvider<TypeBoxTypeProvider>()
const body = process.env['BARE_BODY'] ?? '{}'
const etag = '"Zm9vYmFyYmF6cXV4Zm9vYmFyYmE"'

app.post('/jobs', { schema: { body: NewJobBody, response: { 201: StoredJob } } }, async (request, reply) => {
  const { queue = 'default', name } = request.body
  reply.code(201)
  return {
    id: `${queue}:1`,
    queue,
    name,
    state: 'waiting' as const,
    createdAt: '2026-01-01T00:00:00.000Z',
    deduplicated: false,
  }
})

// The same bytes and headers as a hot read.
app.get('/jobs/:id', (_request, reply) => {
  reply.header('etag', etag)
  reply.header('cache-control', 'no-cache')
  reply.header('cache-status', 'sluice; hit; ttl=1800')
  reply.header('x-request-id', 'abcdefgh-1234')
  reply.header('content-type', 'application/json; charset=utf-8')
  reply.send(body)
})

// Requests that are all answered at once: the least that waiting requests can cost.
const pending: (() => void)[] = []
app.get('/hang/:id', () => new Promise((resolve) => pending.push(() => resolve({ id: 1 }))))
app.get('/release', async () => {
  setImmediate(() => {
    for (const respond of pending.splice(0)) respond()
  })
  return {}
})

await serveTarget(app)
