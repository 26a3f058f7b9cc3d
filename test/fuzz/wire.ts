/** Bytes put on a connection as they are, and what comes back, taken apart as a client would that trusts nothing. */
import { connect } from 'node:net'

export interface Wire {
  /** Each is a write of its own. */
  pieces: Buffer[]
  /**
   * What the client does then: closes its half at once, or once something came (or nothing did for a moment), breaks the
   * connection off, or goes without a word after a moment.
   */
  leave: 'end' | 'linger' | 'reset' | 'vanish'
}

export interface Heard {
  bytes: Buffer
  /** The service had hung up before the client lost patience. */
  isClosed: boolean
}

export interface RawAnswer {
  status: number
  headers: Record<string, string>
  body: string
}

/** How long a client that lingers waits for more. */
const MOMENT_MS = 100
/** Longest that a connection may stay which the client has ended. */
const PATIENCE_MS = 5_000

export function speak(port: number, { pieces, leave }: Wire): Promise<Heard> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true })
    const chunks: Buffer[] = []
    let hasHungUp = false
    let isImpatient = false
    const impatience = setTimeout(() => {
      isImpatient = true
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
      hasHungUp = true
      socket.end()
    })
    // Broken off by the service, or by us: what counts is what came before.
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(moment)
      clearTimeout(impatience)
      resolve({ bytes: Buffer.concat(chunks), isClosed: hasHungUp || !isImpatient })
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

/** The answers one after the other; `rest` is what is none, or is not whole. `bodiless`: they answer HEAD. */
export function takeApart(bytes: Buffer, bodiless = false): { answers: RawAnswer[]; rest: string } {
  const answers: RawAnswer[] = []
  let rest = bytes.toString('latin1')
  for (;;) {
    const end = rest.indexOf(END_OF_HEAD)
    const [first = '', ...lines] = end < 0 ? [] : rest.slice(0, end).split('\r\n')
    const status = Number(/^HTTP\/1\.1 (\d{3}) [\x20-\x7e]*$/.exec(first)?.[1] ?? 0)
    if (status === 0) return { answers, rest }
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const [, name, value] = /^([A-Za-z-]+): (.*)$/.exec(line) ?? []
      if (name === undefined) return { answers, rest }
      headers[name.toLowerCase()] = value!
    }
    const body = bodyOf(rest.slice(end + END_OF_HEAD.length), status, headers, bodiless)
    if (!body) return { answers, rest }
    rest = body.rest
    if (status >= 200) answers.push({ status, headers, body: Buffer.from(body.text, 'latin1').toString() })
  }
}

function bodyOf(text: string, status: number, headers: Record<string, string>, bodiless: boolean) {
  if (bodiless || status < 200 || status === 204 || status === 304) return { text: '', rest: text }
  if (headers['transfer-encoding'] === 'chunked') return dechunk(text)
  const length = headers['content-length']
  // Else it goes to the end.
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
