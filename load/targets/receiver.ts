/**
 * A minimal webhook endpoint in its own process: it reads the body, counts the delivery and responds 200. It
 * does not verify signatures, because the service is what is measured.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveTarget } from './serve.ts'

/** Deliveries by job id, since the last GET. */
let deliveries = new Map<string, number>()

const server = createServer((request, response) => {
  if (request.method === 'GET') report(response)
  else receive(request, response)
})

function receive(request: IncomingMessage, response: ServerResponse): void {
  let body = ''
  request.setEncoding('utf8')
  request.on('data', (chunk: string) => {
    body += chunk
  })
  request.on('end', () => {
    const { id } = JSON.parse(body) as { id: string }
    deliveries.set(id, (deliveries.get(id) ?? 0) + 1)
    respond(response, '{"done":true}')
  })
}

/** `GET` on any path: responds with the deliveries of each job, and resets the counts. */
function report(response: ServerResponse): void {
  const body = JSON.stringify([...deliveries])
  deliveries = new Map()
  respond(response, body)
}

function respond(response: ServerResponse, body: string): void {
  response.writeHead(200, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  })
  response.end(body)
}

await serveTarget({
  listen: ({ host, port }) =>
    new Promise((resolve) => {
      server.listen(port, host, () => resolve(`http://${host}:${(server.address() as AddressInfo).port}`))
    }),
  close: () =>
    new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    }),
})
