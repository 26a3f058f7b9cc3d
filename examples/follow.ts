/**
 * `npx tsx examples/follow.ts`: a page at http://127.0.0.1:8080 that enqueues a job and follows it and its
 * queue with EventSource. Browsers restrict a page to its own origin, so this server proxies its requests to
 * the service, unbuffered, as an application's backend or reverse proxy would. SLUICE_URL is the service
 * (http://127.0.0.1:3000), PORT the port of the page. With REDIS_URL or REDIS_SOCKET (data/redis.sock for the
 * embedded Redis) a BullMQ worker processes the jobs of QUEUE (emails); without them the jobs wait.
 */
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { pipeline } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Job, Worker } from 'bullmq'

const { REDIS_SOCKET, REDIS_URL, QUEUE = 'emails', QUEUE_PREFIX = 'bull' } = process.env
const service = new URL(process.env['SLUICE_URL'] ?? 'http://127.0.0.1:3000')
const port = Number(process.env['PORT'] ?? 8080)
const page = await readFile(new URL('./follow.html', import.meta.url))

/** Only these paths: a URL parser would take `//other.host/` for another server. */
const PROXIED = /^\/(jobs|queues)([/?]|$)/

function proxy(incoming: IncomingMessage, outgoing: ServerResponse): void {
  const { method, headers, url } = incoming
  const upstream = request(
    new URL(url!, service),
    { method: method!, headers: { ...headers, host: service.host } },
    (response) => {
      outgoing.writeHead(response.statusCode!, response.headers)
      outgoing.flushHeaders()
      // When the upstream breaks off, so does this response; otherwise the browser would never reconnect.
      pipeline(response, outgoing, () => {})
    },
  )
  upstream.on('error', (error) => {
    if (outgoing.headersSent) {
      outgoing.destroy()
      return
    }
    outgoing.writeHead(502, { 'content-type': 'application/problem+json' })
    outgoing.end(JSON.stringify({ title: `The service is unreachable: ${error.message}`, status: 502 }))
  })
  outgoing.on('close', () => upstream.destroy())
  incoming.pipe(upstream)
}

const server = createServer((incoming, outgoing) => {
  if (PROXIED.test(incoming.url!)) return proxy(incoming, outgoing)
  const isPage = incoming.url === '/'
  outgoing.writeHead(isPage ? 200 : 404, { 'content-type': 'text/html; charset=utf-8' })
  outgoing.end(isPage ? page : 'Not found')
})
server.listen(port, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${port} follows the jobs of ${service.origin}`)
})

/** Takes three seconds and reports its progress. */
async function work(job: Job): Promise<{ sent: boolean }> {
  for (let progress = 10; progress <= 100; progress += 10) {
    await sleep(300)
    await job.updateProgress(progress)
  }
  return { sent: true }
}

const socket = REDIS_SOCKET ?? (REDIS_URL?.startsWith('unix:') ? new URL(REDIS_URL).pathname : undefined)
if (socket !== undefined || REDIS_URL !== undefined) {
  const connection = socket === undefined ? { url: REDIS_URL! } : { path: socket }
  const worker = new Worker(QUEUE, work, { connection, prefix: QUEUE_PREFIX, concurrency: 4 })
  worker.on('error', ({ message }) => console.error(`worker: ${message}`))
  console.log(`A worker processes the jobs of ${QUEUE}.`)
  // BullMQ finishes active jobs first.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => worker.close().finally(() => process.exit()))
  }
}
