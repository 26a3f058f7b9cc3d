/**
 * A webhook endpoint that mostly responds correctly, and otherwise in every wrong way. Checks that each delivery is a
 * job in the documented shape.
 */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { Test } from 'tap'
import { QUEUES } from './special-values.ts'

export interface WebhookEndpoint {
  port: number
  /** The first few hundred deliveries. */
  received: { queue: string; headers: IncomingHttpHeaders; body: string }[]
  /** What was wrong with deliveries, by kind. */
  faults: Set<string>
  count(): number
}

type Reply = (response: ServerResponse) => void

const reply =
  (status: number, body: string | Buffer = '', headers: Record<string, string> = {}): Reply =>
  (response) =>
    response.writeHead(status, headers).end(body)
const bytes =
  (text: string): Reply =>
  (response) =>
    response.socket?.end(Buffer.from(text, 'latin1'))
const json = { 'content-type': 'application/json' }
const good = reply(200, '{"done":[1,null,"é"]}', json)

/** Sent in turn, with correct responses in between. */
const replies: Reply[] = [
  ...[reply(204), reply(201, 'made', { 'content-type': 'text/plain' }), reply(200, '{"a":', json), reply(200, '"\\ud800"', json)],
  ...[reply(200, '{"__proto__":{"a":1}}', json), reply(200, '['.repeat(500) + ']'.repeat(500), json), reply(200, '1e400', json)],
  ...[reply(200, `"${'x'.repeat(300_000)}"`, json), reply(200, Buffer.from([0x22, 0xff, 0x22]), json), reply(200, '{}', { ...json, 'content-encoding': 'gzip' })],
  ...[reply(500, '\0<b>\x1b[2J', { 'content-type': 'text/html' }), reply(503, '', { 'retry-after': '0' }), reply(429, '', { 'retry-after': '-5' })],
  ...[reply(429, '', { 'retry-after': 'Wed, 21 Oct 2015 07:28:00 GMT' }), reply(408), reply(302, '', { location: 'http://127.0.0.1:1/' }), reply(304)],
  ...[reply(404, 'é'.repeat(1_000), { 'content-type': 'text/plain' }), reply(422, '{"error":"no"}', json), reply(410), reply(599), reply(418)],
  ...[bytes('HTTP/1.1 200'), bytes('nonsense\r\n\r\n'), bytes('HTTP/1.1 999 X\r\n\r\n'), bytes('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}'), bytes('')],
  ...[bytes('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x'), bytes('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n')],
  ...[bytes(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`), bytes('HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')],
  (response) => setTimeout(good, 200, response),
  (response) => response.socket?.destroy(),
] // biome-ignore format: a table to read
const GOOD_BETWEEN = 2

const KEPT = 300
const KEPT_BYTES = 10_000
const FIELDS = 'id,queue,name,attempt,attempts,data'

export async function startWebhookEndpoint(t: Test): Promise<WebhookEndpoint> {
  const received: WebhookEndpoint['received'] = []
  const faults = new Set<string>()
  let count = 0
  const server = createServer(async (request, response) => {
    const nth = count++
    const { method, headers } = request
    let body = ''
    try {
      for await (const chunk of request.setEncoding('utf8')) body += chunk
      for (const fault of faultsOf(method, headers, body)) faults.add(fault)
      const { queue } = JSON.parse(body)
      if (received.length < KEPT && body.length < KEPT_BYTES) received.push({ queue, headers, body })
    } catch (error) {
      // A request that the service aborts, at shutdown or its deadline, is not a delivery.
      if (!request.destroyed || request.complete)
        faults.add(`a delivery cannot be read: ${(error as Error).message}`)
    }
    if (nth % (GOOD_BETWEEN + 1) > 0) good(response)
    else replies[(nth / (GOOD_BETWEEN + 1)) % replies.length]!(response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { port: (server.address() as { port: number }).port, received, faults, count: () => count }
}

function faultsOf(method: string | undefined, headers: IncomingHttpHeaders, body: string): string[] {
  const job = JSON.parse(body)
  return [
    ...(method === 'POST' ? [] : [`the method is ${method}`]),
    ...(Object.keys(job).join() === FIELDS ? [] : [`the fields are ${Object.keys(job)}`]),
    ...(job.id.startsWith(`${job.queue}:`) && job.attempt >= 1
      ? []
      : [`the attempt is ${job.attempt} of ${job.id}`]),
    ...(QUEUES.includes(job.queue) ? ['its queue has no subscription'] : []),
    ...(headers['content-type'] === 'application/json'
      ? []
      : [`the content type is ${headers['content-type']}`]),
    ...(/^msg_[\w-]{22}$/.test(`${headers['webhook-id']}`) ? [] : ['the webhook-id is missing']),
    ...(headers['x-injected'] === undefined ? [] : ['a header was injected']),
  ]
}
