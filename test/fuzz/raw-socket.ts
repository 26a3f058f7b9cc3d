/** Sends raw bytes on a connection, and parses what comes back strictly. */
import { connect } from 'node:net'

export interface RawRequest {
  /** Each piece is a separate write. */
  pieces: Buffer[]
  /**
   * What the client does after writing. `end`: closes its half at once; `linger`: closes it when the service has been
   * silent for a moment; `reset`: resets the connection; `vanish`: destroys its socket after a moment.
   */
  leave: 'end' | 'linger' | 'reset' | 'vanish'
}

export interface RawExchange {
  bytes: Buffer
  /** The service closed the connection before the client gave up. */
  isClosed: boolean
}

export interface RawResponse {
  status: number
  headers: Record<string, string>
  body: string
}

/** How long a lingering client waits for more bytes. */
const MOMENT_MS = 100
/** How long a connection may stay open after the client has ended it. */
const PATIENCE_MS = 5_000

export function exchangeBytes(port: number, { pieces, leave }: RawRequest): Promise<RawExchange> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
    const chunks: Buffer[] = []
    let isEnded = false
    let isTimedOut = false
    const patience = setTimeout(() => {
      isTimedOut = true
      socket.destroy()
    }, PATIENCE_MS)
    let moment: NodeJS.Timeout | undefined
    const soon = () => {
      clearTimeout(moment)
      moment = setTimeout(() => (leave === 'vanish' ? socket.destroy() : socket.end()), MOMENT_MS)
    }
    socket.on('data', (chunk) => {
      chunks.push(chunk)
      if (leave === 'linger') soon()
    })
    socket.on('end', () => {
      isEnded = true
      socket.end()
    })
    // The connection was reset: what arrived before counts.
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(moment)
      clearTimeout(patience)
      resolve({ bytes: Buffer.concat(chunks), isClosed: isEnded || !isTimedOut })
    })
    const write = (at: number) => {
      const piece = pieces[at]
      if (piece !== undefined) socket.write(piece, () => setImmediate(write, at + 1))
      else if (leave === 'reset') socket.resetAndDestroy()
      else if (leave === 'end') socket.end()
      else soon()
    }
    socket.on('connect', () => write(0))
  })
}

const END_OF_HEAD = '\r\n\r\n'

/** Parses consecutive responses; `rest` is what is invalid or incomplete. `bodiless`: they respond to HEAD. */
export function parseResponses(bytes: Buffer, bodiless = false): { responses: RawResponse[]; rest: string } {
  const responses: RawResponse[] = []
  let rest = bytes.toString('latin1')
  for (;;) {
    const end = rest.indexOf(END_OF_HEAD)
    const [first = '', ...lines] = end < 0 ? [] : rest.slice(0, end).split('\r\n')
    const status = Number(/^HTTP\/1\.1 (\d{3}) [\x20-\x7e]*$/.exec(first)?.[1] ?? 0)
    if (status === 0) return { responses, rest }
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const [, name, value] = /^([A-Za-z-]+): (.*)$/.exec(line) ?? []
      if (name === undefined) return { responses, rest }
      headers[name.toLowerCase()] = value!
    }
    const body = bodyOf(rest.slice(end + END_OF_HEAD.length), status, headers, bodiless)
    if (!body) return { responses, rest }
    rest = body.rest
    if (status >= 200) responses.push({ status, headers, body: Buffer.from(body.text, 'latin1').toString() })
  }
}

function bodyOf(text: string, status: number, headers: Record<string, string>, bodiless: boolean) {
  if (bodiless || status < 200 || status === 204 || status === 304) return { text: '', rest: text }
  if (headers['transfer-encoding'] === 'chunked') return dechunk(text)
  const length = headers['content-length']
  // Otherwise the body ends with the connection.
  if (length === undefined) return { text, rest: '' }
  return text.length < Number(length)
    ? undefined
    : { text: text.slice(0, Number(length)), rest: text.slice(Number(length)) }
}

function dechunk(text: string): { text: string; rest: string } | undefined {
  let whole = ''
  let rest = text
  for (;;) {
    const [line, size] = /^([0-9a-f]+)\r\n/i.exec(rest) ?? []
    if (line === undefined) return undefined
    const length = Number.parseInt(size!, 16)
    if (rest.length < line.length + length + 2) return undefined
    whole += rest.slice(line.length, line.length + length)
    rest = rest.slice(line.length + length + 2)
    if (length === 0) return { text: whole, rest }
  }
}
