/**
 * A TCP proxy that injects network faults: delays, lost replies, resets within a reply, half-open connections, refused
 * connections, or an error reply to every Redis command. Works for Redis and HTTP.
 *
 * A lost reply always takes its connection with it, because TCP never drops bytes from a stream that continues.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { createCommandCounter } from './command-counter.ts'

export type Place = { path: string } | { port: number }

export interface TcpProxy {
  readonly port: number
  /** The active faults; assign to change them. */
  readonly faults: Faults
  /** When a reply was lost or a connection was half open, in the time of `performance.now()`. */
  readonly faultTimes: readonly FaultTime[]
  /** Called with all data sent to the target. */
  onSent: ((data: Buffer) => void) | undefined
  /** Existing connections stay open, but pass no more data in either direction. */
  goHalfOpen(): void
  resetAll(): void
  close(): Promise<void>
}

export interface Faults {
  /** Delay of each reply, ms. */
  delayMs: number
  /** Share of replies (chunks) that are dropped, with a reset of the connection. */
  loseShare: number
  /** Share of replies that are cut in half, with a reset of the connection. */
  cutShare: number
  /** New connections are reset immediately. */
  refuse: boolean
  /** Every command gets this error reply, and does not reach Redis. */
  replyWithError: string | undefined
}

export interface FaultTime {
  from: number
  to: number
}

export async function startProxy(target: Place): Promise<TcpProxy> {
  const faults: Faults = { delayMs: 0, loseShare: 0, cutShare: 0, refuse: false, replyWithError: undefined }
  const faultTimes: FaultTime[] = []
  const pairs = new Set<Pair>()

  const server = createServer({ noDelay: true }, (client) => {
    if (faults.refuse) return void client.resetAndDestroy()
    const upstream = connect(target)
    upstream.setNoDelay(true)
    pairs.add(join(client, upstream))
  })

  function join(client: Socket, upstream: Socket): Pair {
    let isHalfOpen = false
    const countCommands = createCommandCounter()
    const delayed = new Set<NodeJS.Timeout>()
    const pair: Pair = {
      reset() {
        if (!pairs.delete(pair)) return
        for (const timeout of delayed) clearTimeout(timeout)
        client.resetAndDestroy()
        upstream.destroy()
      },
      goHalfOpen() {
        isHalfOpen = true
      },
    }
    /** Set once a half-open connection has lost data; an idle one may never do so. */
    let dead: FaultTime | undefined
    const swallow = () => {
      if (dead) return
      dead = { from: performance.now(), to: Number.POSITIVE_INFINITY }
      faultTimes.push(dead)
    }
    client.on('data', (data) => {
      if (isHalfOpen) return swallow()
      proxy.onSent?.(data)
      const { replyWithError } = faults
      if (replyWithError === undefined) upstream.write(data)
      else client.write(`-${replyWithError}\r\n`.repeat(countCommands(data)))
    })
    upstream.on('data', (data) => {
      if (isHalfOpen) return swallow()
      const dice = Math.random()
      if (dice < faults.loseShare + faults.cutShare) {
        faultTimes.push({ from: performance.now(), to: performance.now() })
        if (dice < faults.loseShare) return pair.reset()
        // The first half must be written before the reset, which would overtake it.
        client.write(data.subarray(0, Math.ceil(data.length / 2)), () => pair.reset())
        return
      }
      if (faults.delayMs === 0 && delayed.size === 0) return void client.write(data)
      // Timers of equal length fire in order; the delay does not change while replies wait.
      const timeout = setTimeout(() => {
        delayed.delete(timeout)
        client.write(data)
      }, faults.delayMs)
      delayed.add(timeout)
    })
    for (const socket of [client, upstream]) socket.on('error', () => {})
    client.on('close', () => {
      pairs.delete(pair)
      if (dead) dead.to = performance.now()
      upstream.destroy()
    })
    upstream.on('close', () => {
      // A half-open connection does not report the end of its peer.
      if (!isHalfOpen) client.destroy()
    })
    return pair
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const proxy: TcpProxy = {
    port: portOf(server),
    faults,
    faultTimes,
    onSent: undefined,
    goHalfOpen() {
      for (const pair of pairs) pair.goHalfOpen()
    },
    resetAll() {
      for (const pair of [...pairs]) pair.reset()
    },
    close() {
      for (const pair of [...pairs]) pair.reset()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
  return proxy
}

interface Pair {
  reset(): void
  goHalfOpen(): void
}

function portOf(server: Server): number {
  const address = server.address()
  return typeof address === 'object' && address ? address.port : 0
}
