/**
 * A webhook endpoint: verifies the signature, does the work and responds with the result. Any HTTP server can
 * be one; signatures follow Standard Webhooks, which has libraries for most languages.
 *
 *   1. PORT=4000 WEBHOOK_SECRET=whsec_… npx tsx examples/worker-push.ts
 *   2. curl -X PUT localhost:3000/queues/default/subscription -H 'content-type: application/json' \
 *        -d '{"url":"http://127.0.0.1:4000/jobs","secret":"whsec_…"}'
 *
 * By default the service delivers to public addresses only. For an endpoint on this machine start it with
 * WEBHOOK_ALLOW_CIDRS=127.0.0.0/8. A secret is `whsec_` and the base64 of 24 to 64 random bytes; without one
 * in the PUT, the service generates it and returns it in the response.
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import { Webhook } from 'standardwebhooks'

interface Job {
  id: string
  queue: string
  name: string
  /** Starts at 1. */
  attempt: number
  attempts: number
  data: unknown
}

const webhook = new Webhook(process.env['WEBHOOK_SECRET'] ?? '')
const PORT = Number(process.env['PORT'] ?? 4_000)
const MAX_BYTES = 2_000_000

/** Your work. A job is delivered again when a response was lost; `webhook-id` is then the same. */
async function work({ data }: Job): Promise<object> {
  const text = JSON.stringify(data)
  return { sha256: createHash('sha256').update(text).digest('hex'), bytes: Buffer.byteLength(text) }
}

const server = createServer(async (request, response) => {
  const respond = (status: number, body: object) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  const body = await read(request).catch(() => undefined)
  if (body === undefined) return respond(413, { error: 'The body is too large' })
  let job: Job
  try {
    // Also rejects requests that are older than five minutes.
    job = webhook.verify(body, request.headers as Record<string, string>) as Job
  } catch {
    return respond(401, { error: 'The signature is missing or invalid' })
  }
  try {
    return respond(200, await work(job))
  } catch (error) {
    // 5xx: the job is retried. 422: it is not. 429 or 503 with Retry-After: it is retried no sooner.
    return respond(500, { error: (error as Error).message })
  }
})

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BYTES) throw new Error('The body is too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

server.listen(PORT, '127.0.0.1', () => {
  const { port } = server.address() as { port: number }
  console.log(`Listening at http://127.0.0.1:${port}/jobs`)
})
// Requests in flight are answered first; the service redelivers everything else.
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => server.close())
