/**
 * HTTP clients by the thousand, each on a socket of its own, cheap enough not to be what is measured: they know
 * GET, POST, Content-Length and nothing else.
 */
import { connect, type Socket } from 'node:net'

export interface Answer {
  status: number
  etag: string | undefined
  body: string
}

/** One request at a time. */
export interface Client {
  get(path: string, etag?: string): Promise<Answer>
  /** JSON text. */
  post(path: string, body: string): Promise<Answer>
  close(): void
}

/**
 * Opens them a few hundred at a time, so that the listener's backlog holds. Each asks for `first` at once: a server hangs
 * up on a connection over which nothing has been asked for some seconds, and what is made once for a connection is made.
 */
export async function openClients(url: string, count: number, first: string): Promise<Client[]> {
  const clients: Client[] = []
  while (clients.length < count) {
    const some = Math.min(250, count - clients.length)
    const opened = await Promise.all(Array.from({ length: some }, () => openClient(url)))
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
  let pending: { resolve(answer: Answer): void; reject(error: Error): void } | undefined
  readAnswers(
    socket,
    (answer) => {
      const asked = pending
      pending = undefined
      asked?.resolve(answer)
    },
    (error) => pending?.reject(error),
  )
  const ask = (requestText: string) =>
    new Promise<Answer>((resolve, reject) => {
      if (pending) throw new Error('a client asks for one thing at a time')
      pending = { resolve, reject }
      socket.write(requestText)
    })
  return {
    get(path, etag) {
      const condition = etag === undefined ? '' : `If-None-Match: ${etag}\r\n`
      return ask(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${condition}\r\n`)
    },
    post(path, body) {
      const head = `POST ${path} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`
      return ask(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
    },
    close: () => void socket.destroy(),
  }
}

function readAnswers(
  socket: Socket,
  onAnswer: (answer: Answer) => void,
  onEnd: (error: Error) => void,
): void {
  let text = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    text += chunk
    for (let end = text.indexOf('\r\n\r\n'); end >= 0; end = text.indexOf('\r\n\r\n')) {
      const head = text.slice(0, end)
      const status = Number(head.slice(9, 12))
      const length = status === 304 ? 0 : Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (text.length < end + 4 + length) return
      const body = text.slice(end + 4, end + 4 + length)
      text = text.slice(end + 4 + length)
      onAnswer({ status, etag: /\r\netag: (\S+)/i.exec(head)?.[1], body })
    }
  })
  socket.on('error', onEnd)
  socket.on('close', () => onEnd(new Error('the service closed the connection')))
}
