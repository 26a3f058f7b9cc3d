/**
 * `npx tsx examples/follow.ts`: a page at http://127.0.0.1:8080 that enqueues a job and follows it and its queue by
 * EventSource. A page may only speak to where it came from, so this passes on what it asks of the service, as an
 * application's own backend or its reverse proxy would: bytes as they come, nothing held back, and gone when the browser is.
 * SLUICE_URL says where the service is (http://127.0.0.1:3000), PORT where the page is. With REDIS_URL or REDIS_SOCKET
 * (data/redis.sock, when the service runs its own) a BullMQ worker does the jobs of QUEUE (emails); without, they wait.
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

/** Nothing else: to a URL parser `//other.host/` is another server. */
const PASSED_ON = /^\/(jobs|queues)([/?]|$)/

function passOn(incoming: IncomingMessage, answer: ServerResponse): void {
  const { method, headers, url } = incoming
  const outgoing = request(
    new URL(url!, service),
    { method: method!, headers: { ...headers, host: service.host } },
    (response) => {
      answer.writeHead(response.statusCode!, response.headers)
      answer.flushHeaders()
      // A stream that breaks off there breaks off here, or the browser would never come back. Either end may leave.
      pipeline(response, answer, () => {})
    },
  )
  outgoing.on('error', (error) => {
    if (answer.headersSent) {
      answer.destroy()
      return
    }
    answer.writeHead(502, { 'content-type': 'application/problem+json' })
    answer.end(JSON.stringify({ title: `The service cannot be reached: ${error.message}`, status: 502 }))
  })
  answer.on('close', () => outgoing.destroy())
  incoming.pipe(outgoing)
}

const server = createServer((incoming, answer) => {
  if (PASSED_ON.test(incoming.url!)) return passOn(incoming, answer)
  const isPage = incoming.url === '/'
  answer.writeHead(isPage ? 200 : 404, { 'content-type': 'text/html; charset=utf-8' })
  answer.end(isPage ? page : 'There is nothing here.')
})
server.listen(port, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${port} shows the jobs of ${service.origin}`)
})

/** Takes three seconds, and says how far it is. */
async function work(job: Job): Promise<{ sent: boolean }> {
  for (let progress = 10; progress <= 100; progress += 10) {
    await sleep(300)
    await job.updateProgress(progress)
  }
  return { sent: true }
}

const socket = REDIS_SOCKET ?? (REDIS_URL?.startsWith('unix:') ? new URL(REDIS_URL).pathname : undefined)
if (socket !== undefined || REDIS_URL !== undefined) {
  const connection = { ...(socket === undefined ? { url: REDIS_URL! } : { path: socket }) }
  const worker = new Worker(QUEUE, work, { connection, prefix: QUEUE_PREFIX, concurrency: 4 })
  worker.on('error', ({ message }) => console.error(`The worker: ${message}`))
  console.log(`A worker does the jobs of ${QUEUE}.`)
  // A job that it has begun it ends.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => worker.close().finally(() => process.exit()))
  }
}
