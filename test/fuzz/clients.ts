/** Two ways to put a request to the service: `inject`, which takes no socket, and a real connection that is kept open. */
import { Agent, request } from 'node:http'
import type { TestApp } from '../helpers/app.ts'
import type { Case } from './operations.ts'

export interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  /** Of an event stream what came first. */
  body: string
  /** When it was asked, ms since 1970. */
  atMs: number
  /** Until the answer was whole. */
  ms: number
}

export type Ask = (asked: Case) => Promise<Answer>

export function injecting(app: TestApp): Ask {
  return async ({ method, url, headers, payload }) => {
    const began = performance.now()
    const atMs = Date.now()
    const answer = await app.http.inject({
      ...{ method: method as 'GET', url, headers },
      ...(payload === undefined ? {} : { payload }),
    })
    return {
      status: answer.statusCode,
      headers: answer.headers as Answer['headers'],
      body: answer.body,
      atMs,
      ms: performance.now() - began,
    }
  }
}

/** Longest that a test waits for an answer. */
const TIMEOUT_MS = 15_000

export function dialling(port: number): { ask: Ask; close(): void } {
  const agent = new Agent({ keepAlive: true, maxSockets: 32 })
  return {
    ask: ({ method, url, headers, payload }) =>
      new Promise((resolve, reject) => {
        const began = performance.now()
        const atMs = Date.now()
        const length = payload === undefined ? {} : { 'content-length': Buffer.byteLength(payload) }
        const asking = request({
          ...{ host: '127.0.0.1', port, agent, method, path: url, timeout: TIMEOUT_MS },
          headers: { ...headers, ...length },
        })
        asking.on('timeout', () => asking.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)))
        asking.on('error', reject)
        asking.on('response', (response) => {
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
        asking.end(payload)
      }),
    close: () => agent.destroy(),
  }
}
