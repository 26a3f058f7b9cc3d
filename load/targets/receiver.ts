/**
 * A receiver of webhooks in a process of its own, as bare as one can be: it reads the body, notes whose job it was, and says
 * that all is well. Signatures are not checked: what is measured is the service.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serveTarget } from './serve.ts'

/** By the job's id, how often; since it was asked for last. */
let deliveries = new Map<string, number>()

const server = createServer((request, response) => {
  if (request.method === 'GET') tell(response)
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
    answer(response, '{"done":true}')
  })
}

/** `GET` of anything: how often each job was delivered, and from now on anew. */
function tell(response: ServerResponse): void {
  const told = JSON.stringify([...deliveries])
  deliveries = new Map()
  answer(response, told)
}

function answer(response: ServerResponse, body: string): void {
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
