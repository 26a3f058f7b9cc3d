/**
 * `npx tsx examples/follow.ts`: a page at http://127.0.0.1:8080 that enqueues a job and follows it by EventSource. A page
 * may only speak to where it came from, so this passes on what it asks of the service, as an application's own backend
 * or its reverse proxy would: bytes as they come, nothing held back, and gone when the browser is.
 * SLUICE_URL says where the service is (http://127.0.0.1:3000), PORT where the page is.
 */
import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'

const service = new URL(process.env['SLUICE_URL'] ?? 'http://127.0.0.1:3000')
const port = Number(process.env['PORT'] ?? 8080)
const page = await readFile(new URL('./follow.html', import.meta.url))

function passOn(incoming: IncomingMessage, answer: ServerResponse): void {
  const { method, headers, url } = incoming
  const outgoing = request(
    new URL(url!, service),
    { method: method!, headers: { ...headers, host: service.host } },
    (response) => {
      answer.writeHead(response.statusCode!, response.headers)
      answer.flushHeaders()
      response.pipe(answer)
    },
  )
  outgoing.on('error', (error) => {
    if (!answer.headersSent) answer.writeHead(502, { 'content-type': 'text/plain' })
    answer.end(`The service cannot be reached: ${error.message}`)
  })
  answer.on('close', () => outgoing.destroy())
  incoming.pipe(outgoing)
}

createServer((incoming, answer) => {
  if (incoming.url !== '/') return passOn(incoming, answer)
  answer.writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
  answer.end(page)
}).listen(port, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${port} shows the jobs of ${service.origin}`)
})
