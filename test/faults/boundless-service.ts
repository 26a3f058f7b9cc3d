/**
 * A service without bounds for control runs of attacks: it reads and renders whatever it is asked for, holds every request
 * that waits, logs every refusal, and lets one bad thing stop the rest.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type Job, Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import { startCarelessReader } from './careless-reader.ts'
import { startCarelessWebhooks } from './careless-webhooks.ts'

const address = new URL(process.env['REDIS_URL']!)
const connection = { path: address.pathname, maxRetriesPerRequest: null }
const client = new Redis(connection)
const reader = startCarelessReader(new Redis(connection))
const webhooks = startCarelessWebhooks(client, connection)
const queues = new Map<string, Queue>()
const workers = new Map<string, Worker>()

const document = Object.fromEntries(
  Array.from({ length: 10_000 }, (_, index) => [`path-${index}`, { text: 'x'.repeat(500) }]),
)

function open(name: string): Queue {
  const queue = queues.get(name) ?? new Queue(name, { connection: client })
  queues.set(name, queue)
  return queue
}

async function take(name: string): Promise<Job | undefined> {
  const worker = workers.get(name) ?? new Worker(name, null, { connection, autorun: false })
  workers.set(
    name,
    worker.on('error', () => {}),
  )
  return worker.getNextJob('token', { block: false })
}

async function render(id: string): Promise<string> {
  const [queue, key] = id.split(':') as [string, string]
  const job = await open(queue).getJob(key)
  return job ? JSON.stringify({ ...job.asJSON(), id, state: await job.getState() }) : 'null'
}

type Answer = [status: number, body: string]

async function lease(queue: string, { wait = 0 }: { wait?: number }): Promise<Answer> {
  const deadline = performance.now() + wait * 1_000
  for (;;) {
    const job = await take(queue)
    if (job) return [200, JSON.stringify({ jobs: [{ ...job.asJSON(), id: `${queue}:${job.id}` }] })]
    const leftMs = deadline - performance.now()
    if (leftMs <= 0) return [204, '']
    await reader.next(queue, leftMs)
  }
}

async function handle(method: string, url: URL, body: string, isRefused: boolean): Promise<Answer> {
  const { pathname, searchParams } = url
  if (pathname.startsWith('/health/')) return [200, '{}']
  if (pathname === '/openapi.json') return [200, JSON.stringify(document)]
  const [, , queue = '', what] = pathname.split('/')
  if (isRefused) return [401, '{}']
  if (what === 'leases') return lease(queue, JSON.parse(body))
  if (what === 'subscription') {
    await webhooks.put(queue, body)
    return [200, body]
  }
  if (method === 'POST' && pathname === '/jobs') {
    const { queue, name, data, opts } = JSON.parse(body)
    const job = await open(queue).add(name, data, opts)
    return [201, JSON.stringify({ id: `${queue}:${job.id}` })]
  }
  if (pathname === '/jobs') {
    const ids = searchParams.get('ids')?.split(',') ?? []
    return [200, `{"jobs":[${(await Promise.all(ids.map(render))).join()}]}`]
  }
  if (pathname.startsWith('/jobs/')) return [200, await render(queue)]
  return [404, '{}']
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = ''
  for await (const chunk of request) body += chunk
  const url = new URL(request.url!, 'http://localhost')
  const isRefused = (request.headers.authorization ?? 'wrong').includes('wrong')
  const [status, text] = await handle(request.method!, url, body, isRefused).catch(
    (error: Error): Answer => [500, JSON.stringify({ message: error.message })],
  )
  if (status >= 400) console.log(JSON.stringify({ level: 30, url: request.url, headers: request.headers }))
  response.writeHead(status, { 'content-type': 'application/json' }).end(text)
}

const server = createServer((request, response) => void answer(request, response).catch(() => {}))
server.listen(Number(process.env['PORT']), '127.0.0.1', () => {
  const { port } = server.address() as { port: number }
  console.log(`Server listening at http://127.0.0.1:${port}`)
})
