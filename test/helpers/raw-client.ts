/** A client on a real socket that pipelines, does not read, or leaves when a test says so. */
import { connect, type Socket } from 'node:net'
import type { Test } from 'tap'
import { parseResponses, type RawResponse } from '../fuzz/raw-socket.ts'

export interface RawClient {
  socket: Socket
  /** Requests without a body, or with a JSON body, in one write. */
  send(...requests: RequestText[]): void
  responses(): RawResponse[]
  text(): string
  isClosed(): boolean
}

export interface RequestText {
  method?: string
  path: string
  body?: object
  secret?: string
}

/** Connects to this port of loopback; the socket is destroyed when the test ends. */
export async function openRawClient(t: Test, port: number): Promise<RawClient> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true })
  t.teardown(() => socket.destroy())
  const chunks: Buffer[] = []
  let isClosed = false
  socket.on('data', (chunk) => chunks.push(chunk))
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
  })
  await new Promise((resolve) => socket.once('connect', resolve))
  return {
    socket,
    send: (...requests) => void socket.write(requests.map(toText).join('')),
    responses: () => parseResponses(Buffer.concat(chunks)).responses,
    text: () => Buffer.concat(chunks).toString('latin1'),
    isClosed: () => isClosed,
  }
}

export function toText({ method, path, body, secret }: RequestText): string {
  const payload = body === undefined ? '' : JSON.stringify(body)
  const lines = [
    `${method ?? (body ? 'POST' : 'GET')} ${path} HTTP/1.1`,
    'Host: localhost',
    ...(secret === undefined ? [] : [`Authorization: Bearer ${secret}`]),
    ...(body ? ['Content-Type: application/json', `Content-Length: ${Buffer.byteLength(payload)}`] : []),
  ]
  return `${lines.join('\r\n')}\r\n\r\n${payload}`
}

/** The codes of the problems among the responses. */
export function codesOf(responses: RawResponse[]): string[] {
  return responses
    .filter(({ headers }) => headers['content-type']?.startsWith('application/problem+json'))
    .map(({ body }) => (JSON.parse(body) as { code: string }).code)
}
