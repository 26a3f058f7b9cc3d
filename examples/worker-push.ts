/**
 * A receiver of jobs: verifies the signature, does the work, and answers with what came of it. Anything that speaks HTTP
 * can be one; the signature is Standard Webhooks', so every language has a library for it.
 *
 *   1. PORT=4000 WEBHOOK_SECRET=whsec_… npx tsx examples/worker-push.ts
 *   2. curl -X PUT localhost:3000/queues/default/subscription -H 'content-type: application/json' \
 *        -d '{"url":"http://127.0.0.1:4000/jobs","secret":"whsec_…"}'
 *
 * The service sends to the public internet only: for a receiver on this machine start it with
 * WEBHOOK_ALLOW_CIDRS=127.0.0.0/8. A secret is `whsec_` and the base64 of 24 to 64 random bytes, or comes with the answer to
 * the PUT when none is sent.
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import { Webhook } from 'standardwebhooks'

interface Job {
  id: string
  queue: string
  name: string
  /** From 1. */
  attempt: number
  attempts: number
  data: unknown
}

const webhook = new Webhook(process.env['WEBHOOK_SECRET'] ?? '')
const PORT = Number(process.env['PORT'] ?? 4_000)
const MAX_BYTES = 2_000_000

/** Your work. It may come twice for one job, when an answer was lost: `webhook-id` is then the same. */
async function work({ data }: Job): Promise<object> {
  const text = JSON.stringify(data)
  return { sha256: createHash('sha256').update(text).digest('hex'), bytes: Buffer.byteLength(text) }
}

const server = createServer(async (request, response) => {
  const answer = (status: number, body: object) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  const body = await read(request).catch(() => undefined)
  if (body === undefined) return answer(413, { error: 'too large' })
  let job: Job
  try {
    // Also refuses what is older than five minutes.
    job = webhook.verify(body, request.headers as Record<string, string>) as Job
  } catch {
    return answer(401, { error: 'not signed by the service' })
  }
  try {
    return answer(200, await work(job))
  } catch (error) {
    // 5xx: try again. 422: never again. 429 or 503 with Retry-After: not before then.
    return answer(500, { error: (error as Error).message })
  }
})

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BYTES) throw new Error('too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

server.listen(PORT, '127.0.0.1', () => {
  const { port } = server.address() as { port: number }
  console.log(`receiving at http://127.0.0.1:${port}/jobs`)
})
// What is being worked is answered first; the service sends the rest again.
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => server.close())
