/** Clients of attacks: some discard what they read, some never read, and some pipeline. */
import { existsSync, readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Testbed } from './testbed.ts'
import { sleep } from './timing.ts'

export interface Drained {
  /** 0: no complete response. */
  status: number
  bytes: number
  /** The `code` of a problem. */
  code: string | undefined
  hasRetryAfter: boolean
  ms: number
  /** The client gave up. */
  isTimeout: boolean
}

export interface DrainOptions {
  headers?: Record<string, string>
  method?: string
  body?: string
  /** The client closes the connection after this. */
  timeoutMs?: number
  /** Or after this. */
  signal?: AbortSignal
}

const HEAD_BYTES = 4_096
const RECONNECT_MS = 10
const TCP_TABLE = '/proc/net/tcp'

/** Sends requests and discards the responses as they arrive. */
export function createDrain(testbed: Testbed) {
  const agent = new Agent({ keepAlive: true })
  testbed.onEnd(() => agent.destroy())
  return (url: string, { headers = {}, method, body, timeoutMs = 60_000, signal }: DrainOptions = {}) =>
    new Promise<Drained>((resolve) => {
      const startedAt = performance.now()
      let [bytes, head, isTimeout] = [0, '', false]
      const finish = (status: number, hasRetryAfter: boolean) => {
        clearTimeout(impatience)
        const ms = performance.now() - startedAt
        resolve({ status, bytes, code: /"code":"(\w+)"/.exec(head)?.[1], hasRetryAfter, ms, isTimeout })
      }
      const all = body === undefined ? headers : { ...headers, 'content-type': 'application/json' }
      const options = {
        ...(signal ? { signal } : {}),
        agent,
        headers: all,
        method: method ?? (body === undefined ? 'GET' : 'POST'),
      }
      const sent = request(url, options, (response) => {
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (head.length < HEAD_BYTES) head += chunk.toString('latin1', 0, HEAD_BYTES)
        })
        response.on('end', () => finish(response.statusCode!, response.headers['retry-after'] !== undefined))
        response.on('error', () => finish(0, false))
      })
      const impatience = setTimeout(() => {
        isTimeout = true
        sent.destroy()
      }, timeoutMs)
      sent.on('error', () => finish(0, false))
      sent.end(body)
    })
}

/** A refusal that the client can understand: a problem with a code, and when to come back if it is about load. */
export function isDocumented({ status, code, hasRetryAfter }: Drained): boolean {
  if (status >= 200 && status < 300) return true
  if (code === undefined) return false
  return status === 429 || status === 503 ? hasRetryAfter : status >= 400 && status < 500
}

/** The text of a request on a raw socket. */
export function requestText(path: string, headers: Record<string, string>, body?: string): string {
  const lines = Object.entries({
    host: 'localhost',
    ...headers,
    ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': `${body.length}` }),
  }).map(([name, value]) => `${name}: ${value}`)
  return `${body === undefined ? 'GET' : 'POST'} ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n${body ?? ''}`
}

/** A socket that sends and never reads. */
export function openMuteSocket(testbed: Testbed, url: string): Socket {
  const { port, hostname } = new URL(url)
  const socket = connect({ port: Number(port), host: hostname })
  socket.pause()
  socket.on('error', () => {})
  testbed.onEnd(() => socket.destroy())
  return socket
}

/** To how many of them the service is still sending what they do not read; 0 without /proc. */
export function countSending(sockets: Socket[]): number {
  const ports = new Set(sockets.map(({ localPort }) => localPort))
  // The service's end of a connection: its state, 01 while the service has not closed it, and the bytes not acknowledged.
  const isSending = (line: string) => {
    const [, , remote = '', state, queues = ''] = line.trim().split(/\s+/)
    const port = Number.parseInt(remote.split(':')[1] ?? '', 16)
    return state === '01' && ports.has(port) && Number.parseInt(queues, 16) > 0
  }
  return existsSync(TCP_TABLE) ? readFileSync(TCP_TABLE, 'utf8').split('\n').filter(isSending).length : 0
}

/**
 * Pipelines requests without waiting for responses, which it discards, and connects again whenever it is disconnected.
 * Stops sending after `times` requests; resolves after `seconds` with how many were sent.
 */
export async function pipeline(
  testbed: Testbed,
  url: string,
  text: (index: number) => string,
  times: number,
  seconds: number,
): Promise<number> {
  const deadline = performance.now() + seconds * 1_000
  let socket = openMuteSocket(testbed, url).resume()
  let written = 0
  while (performance.now() < deadline) {
    if (socket.destroyed) {
      await sleep(RECONNECT_MS)
      socket = openMuteSocket(testbed, url).resume()
    }
    let chunk = ''
    for (let i = 0; i < 100 && written < times; i++) chunk += text(written++)
    if (chunk === '') await sleep(RECONNECT_MS)
    else if (socket.write(chunk)) await new Promise(setImmediate)
    else await nextDrain(socket, deadline - performance.now())
  }
  socket.destroy()
  return written
}

/**
 * Pipelines the same requests again and again at a fixed rate, each burst after the responses to the previous one. Resolves
 * with how many were answered.
 */
export async function sendBursts(
  testbed: Testbed,
  url: string,
  burst: string[],
  ratePerS: number,
  seconds: number,
): Promise<number> {
  const startedAt = performance.now()
  let [sent, answered] = [0, 0]
  const open = () =>
    openMuteSocket(testbed, url)
      .setEncoding('latin1')
      .on('data', (text: string) => {
        answered += text.split('HTTP/1.1 ').length - 1
      })
      .resume()
  let socket = open()
  for (let elapsedS = 0; elapsedS < seconds; elapsedS = (performance.now() - startedAt) / 1_000) {
    if (socket.destroyed) {
      sent = answered
      socket = open()
    }
    if (answered >= sent && sent < ratePerS * elapsedS) {
      sent += burst.length
      socket.write(burst.join(''))
    }
    await sleep(1)
  }
  socket.destroy()
  return answered
}

function nextDrain(socket: Socket, timeoutMs: number): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timeout)
      for (const event of ['drain', 'close']) socket.off(event, finish)
      resolve()
    }
    const timeout = setTimeout(finish, Math.max(0, timeoutMs))
    for (const event of ['drain', 'close']) socket.once(event, finish)
  })
}
