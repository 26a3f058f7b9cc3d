/**
 * Thousands of HTTP clients, each on its own socket. They support only GET, POST and Content-Length, so that
 * their own cost does not dominate the measurement.
 */
import { connect, type Socket } from 'node:net'

export interface HttpResponse {
  status: number
  etag: string | undefined
  body: string
}

/** Sends one request at a time. */
export interface Client {
  get(path: string, etag?: string): Promise<HttpResponse>
  /** `body`: JSON text. */
  post(path: string, body: string): Promise<HttpResponse>
  close(): void
}

/**
 * Opens clients a few hundred at a time, within the listener's backlog. Each requests `first` at once: a
 * server closes connections without a request after a few seconds, and the cost of a new connection is not
 * measured.
 */
export async function openClients(url: string, count: number, first: string): Promise<Client[]> {
  const clients: Client[] = []
  while (clients.length < count) {
    const size = Math.min(250, count - clients.length)
    const opened = await Promise.all(Array.from({ length: size }, () => openClient(url)))
    await Promise.all(opened.map((client) => client.get(first)))
    clients.push(...opened)
  }
  return clients
}

async function openClient(url: string): Promise<Client> {
  const { hostname, port, host } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.setNoDelay(true)
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  let pending: { resolve(response: HttpResponse): void; reject(error: Error): void } | undefined
  readResponses(
    socket,
    (response) => {
      const request = pending
      pending = undefined
      request?.resolve(response)
    },
    (error) => pending?.reject(error),
  )
  const send = (requestText: string) =>
    new Promise<HttpResponse>((resolve, reject) => {
      if (pending) throw new Error('A client sends one request at a time')
      pending = { resolve, reject }
      socket.write(requestText)
    })
  return {
    get(path, etag) {
      const condition = etag === undefined ? '' : `If-None-Match: ${etag}\r\n`
      return send(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${condition}\r\n`)
    },
    post(path, body) {
      const head = `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`
      return send(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
    },
    close: () => void socket.destroy(),
  }
}

function readResponses(
  socket: Socket,
  onResponse: (response: HttpResponse) => void,
  onEnd: (error: Error) => void,
): void {
  let text = ''
  /** Characters that the first response has; 0 until its head is there. */
  let needed = 0
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    text += chunk
    // Searching a large response anew for each of its parts would cost more than the service.
    if (text.length < needed) return
    needed = 0
    for (let end = text.indexOf('\r\n\r\n'); end >= 0; end = text.indexOf('\r\n\r\n')) {
      const head = text.slice(0, end)
      const status = Number(head.slice(9, 12))
      const length = status === 304 ? 0 : Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (text.length < end + 4 + length) {
        needed = end + 4 + length
        return
      }
      const body = text.slice(end + 4, end + 4 + length)
      text = text.slice(end + 4 + length)
      onResponse({ status, etag: /\r\netag: (\S+)/i.exec(head)?.[1], body })
    }
  })
  socket.on('error', onEnd)
  socket.on('close', () => onEnd(new Error('The service closed the connection')))
}
