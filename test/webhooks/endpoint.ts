/** A webhook endpoint on loopback that records its requests and replies as the test says. */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { Test } from 'tap'

export interface Received {
  headers: IncomingHttpHeaders
  body: string
  job: { id: string; queue: string; name: string; attempt: number; attempts: number; data: unknown }
}

export interface Reply {
  status?: number
  headers?: Record<string, string>
  body?: string
  /** Delay before the reply, ms. */
  afterMs?: number
}

export interface Receiver {
  url: string
  received: Received[]
  /** The largest number of concurrent requests so far. */
  most(): number
  connections(): number
  /** Replies to the following requests. */
  answer: (request: Received) => Reply
}

export async function startReceiver(t: Test): Promise<Receiver> {
  let open = 0
  let most = 0
  let connections = 0
  const receiver = { received: [] as Received[], answer: () => ({}) as Reply }
  const server = createServer(async (request, response) => {
    most = Math.max(most, ++open)
    response.once('close', () => open--)
    let body = ''
    for await (const chunk of request.setEncoding('utf8')) body += chunk
    const received = { headers: request.headers, body, job: JSON.parse(body) as Received['job'] }
    receiver.received.push(received)
    const answer = receiver.answer as Receiver['answer']
    const { status = 200, headers = {}, body: text = '', afterMs = 0 } = answer(received)
    if (afterMs > 0) await new Promise((resolve) => setTimeout(resolve, afterMs))
    response.writeHead(status, headers).end(text)
  })
  server.on('connection', () => connections++)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as { port: number }
  return Object.assign(receiver, {
    url: `http://127.0.0.1:${port}/hook`,
    most: () => most,
    connections: () => connections,
  }) as Receiver
}
