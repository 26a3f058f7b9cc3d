/** Two ways to send a request to the service: `inject`, without a socket, and real keep-alive connections. */
import { Agent, request } from 'node:http'
import type { TestApp } from '../helpers/app.ts'
import type { Case } from './operations.ts'

export interface HttpResponse {
  status: number
  headers: Record<string, string | string[] | undefined>
  /** Of an event stream, only the first chunk. */
  body: string
  /** When the request was sent, ms since 1970. */
  atMs: number
  /** Until the response was complete. */
  ms: number
}

export type Send = (testCase: Case) => Promise<HttpResponse>

export function createInjectClient(app: TestApp): Send {
  return async ({ method, url, headers, payload }) => {
    const began = performance.now()
    const atMs = Date.now()
    const response = await app.http.inject({
      ...{ method: method as 'GET', url, headers },
      ...(payload === undefined ? {} : { payload }),
    })
    return {
      status: response.statusCode,
      headers: response.headers as HttpResponse['headers'],
      body: response.body,
      atMs,
      ms: performance.now() - began,
    }
  }
}

/** How long a test waits for a response. */
const TIMEOUT_MS = 15_000

export function createSocketClient(port: number): { send: Send; close(): void } {
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  return {
    send: ({ method, url, headers, payload }) =>
      new Promise((resolve, reject) => {
        const began = performance.now()
        const atMs = Date.now()
        const length = payload === undefined ? {} : { 'content-length': Buffer.byteLength(payload) }
        const outgoing = request({
          ...{ host: '127.0.0.1', port, agent, method, path: url, timeout: TIMEOUT_MS },
          headers: { ...headers, ...length },
        })
        outgoing.on('timeout', () => outgoing.destroy(new Error(`no response in ${TIMEOUT_MS} ms`)))
        outgoing.on('error', reject)
        outgoing.on('response', (response) => {
          let body = ''
          const done = () => {
            const { statusCode: status = 0, headers } = response
            resolve({ status, headers, body, atMs, ms: performance.now() - began })
          }
          response.setEncoding('utf8')
          response.on('error', reject)
          response.on('end', done)
          response.on('data', (chunk) => {
            body += chunk
            if (!response.headers['content-type']?.startsWith('text/event-stream')) return
            done()
            response.removeAllListeners('error').on('error', () => {})
            response.destroy()
          })
        })
        outgoing.end(payload)
      }),
    close: () => agent.destroy(),
  }
}
