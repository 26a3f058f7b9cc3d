/** Webhook endpoints on loopback: a fast one, and several whose responses never end; and the requests that subscribe them. */
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { HttpClient } from './clients.ts'
import type { Service } from './processes.ts'
import type { Testbed } from './testbed.ts'
import { sleep } from './timing.ts'

export interface FastEndpoint {
  url: string
  /** When each job arrived, by its id, in the time of `performance.now()`. */
  arrivals: Map<string, number[]>
}

/** The fast endpoint never responds to jobs with this name. */
export const MUTE = 'mute'

/** `keepsAlive`: whether connections stay open for the next delivery; default true. */
export async function startFastEndpoint(
  testbed: Testbed,
  { keepsAlive = true }: { keepsAlive?: boolean } = {},
): Promise<FastEndpoint> {
  const arrivals = new Map<string, number[]>()
  const server = createHttpServer(async (request, response) => {
    const at = performance.now()
    let body = ''
    for await (const chunk of request.setEncoding('utf8')) body += chunk
    const { id, name } = JSON.parse(body) as { id: string; name: string }
    arrivals.set(id, [...(arrivals.get(id) ?? []), at])
    if (!keepsAlive) response.shouldKeepAlive = false
    if (name !== MUTE) response.end()
  })
  testbed.onEnd(() => server.closeAllConnections())
  return { url: await listen(testbed, server), arrivals }
}

export interface SlowEndpoint {
  url: string
  way: Way | Flood
  /** Whether it sends complete headers, immediately. */
  hasHeaders: boolean
  /** From the first byte of a request to the end of its socket. */
  attempts: Attempt[]
  sockets(): number
}

export interface Attempt {
  from: number
  /** Infinity while it lasts. */
  to: number
}

const DRIBBLE_MS = 200
const HEAD = 'HTTP/1.1 200 OK\r\n'

interface Talk {
  /** Written when a request arrives. */
  first?: string
  /** Then written repeatedly. */
  drop?: string
  /** Then written as fast as the service reads. */
  flood?: Buffer
}

const talks = {
  'sends nothing': {},
  'dribbles its headers': { first: `${HEAD}x-slow: `, drop: 'x' },
  'sends interim responses': { drop: 'HTTP/1.1 103 Early Hints\r\n\r\n' },
  'dribbles its body': { first: `${HEAD}content-length: 1000000\r\n\r\n`, drop: 'x' },
  'dribbles chunks': { first: `${HEAD}transfer-encoding: chunked\r\n\r\n`, drop: '1\r\nx\r\n' },
  'sends an endless body': { first: `${HEAD}\r\n`, flood: Buffer.alloc(65_536, 'x') },
} satisfies Record<string, Talk>

/** Endpoints that never get to the body, as fast as the service reads: each keeps a parser busy without an end. */
const floods = {
  'floods interim responses': { flood: Buffer.from('HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(600)) },
  'sends an endless chunk extension': {
    first: `${HEAD}transfer-encoding: chunked\r\n\r\n1;`,
    flood: Buffer.alloc(16_384, 'x'),
  },
  'sends endless headers': { first: HEAD, flood: Buffer.from('x-slow: x\r\n'.repeat(1_500)) },
  'sends endless trailers': {
    first: `${HEAD}transfer-encoding: chunked\r\n\r\n0\r\n`,
    flood: Buffer.from('x-slow: x\r\n'.repeat(1_500)),
  },
} satisfies Record<string, Talk>

export type Way = keyof typeof talks
export const ways = Object.keys(talks) as Way[]
export type Flood = keyof typeof floods
export const floodWays = Object.keys(floods) as Flood[]

export async function startSlowEndpoint(testbed: Testbed, way: Way | Flood): Promise<SlowEndpoint> {
  const { first, drop, flood }: Talk = { ...talks, ...floods }[way]
  const sockets = new Set<Socket>()
  const talking = new Set<Socket>()
  const attempts: Attempt[] = []
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => {
      const attempt = { from: performance.now(), to: Number.POSITIVE_INFINITY }
      attempts.push(attempt)
      socket.once('close', () => {
        attempt.to = performance.now()
      })
      if (first) socket.write(first)
      talking.add(socket)
      if (flood) writeContinuously(socket, flood)
    })
    socket.once('close', () => {
      sockets.delete(socket)
      talking.delete(socket)
    })
    // Unread data would hide that the peer has closed.
    socket.resume()
  })
  const options = setInterval(() => {
    if (drop) for (const socket of talking) socket.write(drop)
  }, DRIBBLE_MS)
  testbed.onEnd(() => {
    clearInterval(options)
    for (const socket of sockets) socket.destroy()
  })
  const hasHeaders = first?.includes('\r\n\r\n') ?? false
  return { url: await listen(testbed, server), way, hasHeaders, attempts, sockets: () => sockets.size }
}

function writeContinuously(socket: Socket, flood: Buffer): void {
  const write = () => {
    while (!socket.destroyed && socket.write(flood)) {
      // Writes until the buffer is full.
    }
  }
  socket.on('drain', write)
  write()
}

export interface Subscription {
  url: string
  timeoutMs: number
  concurrency?: number
  rateLimit?: { max: number; duration: number }
}

/** Throws if the subscription is rejected. */
export async function subscribe(
  httpClient: HttpClient,
  service: Service,
  queue: string,
  subscription: Subscription,
  headers: Record<string, string> = {},
): Promise<void> {
  const options = { method: 'PUT', body: JSON.stringify(subscription), headers } as const
  const { status, body } = await httpClient.ask(`${service.url}/queues/${queue}/subscription`, options)
  if (status !== 200 && status !== 201) throw new Error(`no subscription of ${queue}: ${status} ${body}`)
}

/** Renews subscriptions periodically, so that a paused one resumes. `stop` deletes them. */
export function keepSubscribed(
  httpClient: HttpClient,
  service: Service,
  subscriptions: (Subscription & { queue: string })[],
  everyMs: number,
): { stop(): Promise<void> } {
  let isStopped = false
  const subscribing = (async () => {
    for (; !isStopped; await sleep(everyMs)) {
      for (const { queue, ...subscription } of subscriptions) {
        // A rejected subscription is sent again in the next round.
        await subscribe(httpClient, service, queue, subscription).catch(() => {})
      }
    }
  })()
  return {
    async stop() {
      isStopped = true
      await subscribing
      for (const { queue } of subscriptions) {
        await httpClient.ask(`${service.url}/queues/${queue}/subscription`, { method: 'DELETE' })
      }
    },
  }
}

/** The highest number of concurrent attempts. */
export function maxConcurrent(attempts: Attempt[]): number {
  const steps = attempts.flatMap(({ from, to }) => [
    { at: from, by: 1 },
    { at: to, by: -1 },
  ])
  let [now, most] = [0, 0]
  for (const { by } of steps.sort((a, b) => a.at - b.at)) {
    now += by
    most = Math.max(most, now)
  }
  return most
}

export async function listen(testbed: Testbed, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  testbed.onEnd(() => void server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`
}
