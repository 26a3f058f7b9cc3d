/**
 * A TCP proxy that does what networks do: it delays, loses a reply and then the connection, resets in mid-reply, lets a
 * connection die without a word, refuses, or answers every command of Redis with a text. One for Redis, one for HTTP.
 *
 * A reply is never taken out of a stream that goes on: TCP does not do that. It is lost together with its connection.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { createCommandCounter } from './resp.ts'

export type Place = { path: string } | { port: number }

export interface TcpProxy {
  readonly port: number
  /** What it does from now on; to be written to. */
  readonly faults: Faults
  /** When a reply was lost, or a connection was dead, ms on the clock of this process. */
  readonly hurt: readonly Hurt[]
  /** Told of all that is sent to the target. */
  onSent: ((data: Buffer) => void) | undefined
  /** What is connected now passes nothing more in either direction, and stays open. */
  goHalfOpen(): void
  resetAll(): void
  close(): Promise<void>
}

export interface Faults {
  /** Of each reply, ms. */
  delayMs: number
  /** Share of replies (chunks) that are swallowed, with a reset of the connection. */
  loseShare: number
  /** The same, with half of the reply delivered. */
  cutShare: number
  /** New connections are refused (closed at once). */
  refuse: boolean
  /** Every command is answered with this error, and does not reach Redis. */
  answerWith: string | undefined
}

export interface Hurt {
  from: number
  to: number
}

export async function startProxy(target: Place): Promise<TcpProxy> {
  const faults: Faults = { delayMs: 0, loseShare: 0, cutShare: 0, refuse: false, answerWith: undefined }
  const hurt: Hurt[] = []
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
    /** Of a connection that is dead, once that has cost anybody anything: one that is idle may stay so for long. */
    let dead: Hurt | undefined
    const swallow = () => {
      if (dead) return
      dead = { from: performance.now(), to: Number.POSITIVE_INFINITY }
      hurt.push(dead)
    }
    client.on('data', (data) => {
      if (isHalfOpen) return swallow()
      proxy.onSent?.(data)
      const { answerWith } = faults
      if (answerWith === undefined) upstream.write(data)
      else client.write(`-${answerWith}\r\n`.repeat(countCommands(data)))
    })
    upstream.on('data', (data) => {
      if (isHalfOpen) return swallow()
      const dice = Math.random()
      if (dice < faults.loseShare + faults.cutShare) {
        hurt.push({ from: performance.now(), to: performance.now() })
        if (dice < faults.loseShare) return pair.reset()
        // The first half has to be on its way before the reset, which would overtake it.
        client.write(data.subarray(0, Math.ceil(data.length / 2)), () => pair.reset())
        return
      }
      if (faults.delayMs === 0 && delayed.size === 0) return void client.write(data)
      // Timers of one length fire in order; the length does not change while replies wait.
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
      // A dead connection tells nobody that its other end is gone.
      if (!isHalfOpen) client.destroy()
    })
    return pair
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const proxy: TcpProxy = {
    port: portOf(server),
    faults,
    hurt,
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
