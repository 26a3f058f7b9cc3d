/**
 * Receivers of webhooks: one that answers at once, and those that come to no end, each in its own way. All on loopback. And
 * what it takes to be sent anything.
 */
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Browser } from './clients.ts'
import type { Service } from './processes.ts'
import type { Stage } from './stage.ts'
import { sleep } from './wait.ts'

export interface GoodReceiver {
  url: string
  /** When each job came, by its id; on the clock of this process. */
  arrivals: Map<string, number[]>
}

/** Answers 200 at once, but a job of this name never. */
export const MUTE = 'mute'

export async function startGoodReceiver(stage: Stage): Promise<GoodReceiver> {
  const arrivals = new Map<string, number[]>()
  const server = createHttpServer(async (request, response) => {
    const at = performance.now()
    let body = ''
    for await (const chunk of request.setEncoding('utf8')) body += chunk
    const { id, name } = JSON.parse(body) as { id: string; name: string }
    arrivals.set(id, [...(arrivals.get(id) ?? []), at])
    if (name !== MUTE) response.end()
  })
  stage.onEnd(() => server.closeAllConnections())
  return { url: await listen(stage, server), arrivals }
}

export interface BadReceiver {
  url: string
  way: Way
  /** Its headers come, and at once. */
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
  /** Written when a request has come. */
  first?: string
  /** Then again and again. */
  drop?: string
  /** Then as fast as it is read. */
  flood?: Buffer
}

const talks = {
  'says nothing': {},
  'dribbles its headers': { first: `${HEAD}x-slow: `, drop: 'x' },
  'says that it goes on': { drop: 'HTTP/1.1 103 Early Hints\r\n\r\n' },
  'dribbles its body': { first: `${HEAD}content-length: 1000000\r\n\r\n`, drop: 'x' },
  'dribbles chunks': { first: `${HEAD}transfer-encoding: chunked\r\n\r\n`, drop: '1\r\nx\r\n' },
  'has no end': { first: `${HEAD}\r\n`, flood: Buffer.alloc(65_536, 'x') },
} satisfies Record<string, Talk>

export type Way = keyof typeof talks
export const ways = Object.keys(talks) as Way[]

export async function startBadReceiver(stage: Stage, way: Way): Promise<BadReceiver> {
  const { first, drop, flood }: Talk = talks[way]
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
      if (flood) pour(socket, flood)
    })
    socket.once('close', () => {
      sockets.delete(socket)
      talking.delete(socket)
    })
    // What is not read would hide that the other end is gone.
    socket.resume()
  })
  const dribbling = setInterval(() => {
    if (drop) for (const socket of talking) socket.write(drop)
  }, DRIBBLE_MS)
  stage.onEnd(() => {
    clearInterval(dribbling)
    for (const socket of sockets) socket.destroy()
  })
  const hasHeaders = first?.includes('\r\n\r\n') ?? false
  return { url: await listen(stage, server), way, hasHeaders, attempts, sockets: () => sockets.size }
}

function pour(socket: Socket, flood: Buffer): void {
  const write = () => {
    while (!socket.destroyed && socket.write(flood)) {
      // Until it has to be read first.
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

/** Throws when it is refused. */
export async function subscribe(
  browser: Browser,
  service: Service,
  queue: string,
  subscription: Subscription,
): Promise<void> {
  const options = { method: 'PUT', body: JSON.stringify(subscription) } as const
  const { status, body } = await browser.ask(`${service.url}/queues/${queue}/subscription`, options)
  if (status !== 200 && status !== 201) throw new Error(`no subscription of ${queue}: ${status} ${body}`)
}

/** As an operator who does not give up. In the end there is no subscription any more. */
export function subscribeAgainAndAgain(
  browser: Browser,
  service: Service,
  subscriptions: (Subscription & { queue: string })[],
  everyMs: number,
): { stop(): Promise<void> } {
  let isStopped = false
  const subscribing = (async () => {
    for (; !isStopped; await sleep(everyMs)) {
      for (const { queue, ...subscription } of subscriptions) {
        // What was refused is asked for again in the next round.
        await subscribe(browser, service, queue, subscription).catch(() => {})
      }
    }
  })()
  return {
    async stop() {
      isStopped = true
      await subscribing
      for (const { queue } of subscriptions) {
        await browser.ask(`${service.url}/queues/${queue}/subscription`, { method: 'DELETE' })
      }
    },
  }
}

/** How many there were at the same time. */
export function mostAtOnce(attempts: Attempt[]): number {
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

async function listen(stage: Stage, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  stage.onEnd(() => void server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`
}
