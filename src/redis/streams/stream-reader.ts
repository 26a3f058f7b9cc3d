/**
 * Follows any number of streams with one blocking XREAD on the `events` connection. Connects the read cycle,
 * the loop that repeats it, and the connection's events. The states are in stream-reader-state.ts.
 *
 * When the set of streams changes, the read is interrupted from another connection. Under load a short pause
 * between reads lets a few commands fetch thousands of entries.
 */
import type { Logger } from 'pino'
import type { RedisConnections } from '../connection/connections.ts'
import type { StreamGap } from './gap-detector.ts'
import { createReadCycle, type ReadCycleStats } from './read-cycle.ts'
import { createReadInterrupter } from './read-interrupter.ts'
import { createReadLoop } from './read-loop.ts'
import { createReadPacer } from './read-pacer.ts'
import { createReaderCommands, type Entry } from './reader-commands.ts'
import {
  CONNECTION_LOST,
  hasReadableStream,
  hasUnreadStream,
  isStreamLive,
  lastStreamRemoved,
  type ReaderHealth,
  type ReadStream,
  readerHealth,
  readingFailed,
} from './stream-reader-state.ts'

export type { Entry }

export interface StreamReader {
  /**
   * Delivers the entries after `position`. A stream that is being read already continues where it is. `eventless`: its
   * queue is known to keep no events.
   */
  add(stream: string, position: string, eventless?: boolean): void
  remove(stream: string): void
  /** Whether a new entry of the stream is delivered within a moment. */
  isLive(stream: string): boolean
  /** The streams of queues that keep no events. */
  eventless(): string[]
  stats(): StreamReaderStats
  close(): Promise<void>
}

export interface StreamReaderStats extends ReaderHealth, ReadCycleStats {
  streams: number
  /** Connections dropped because a reply was overdue. */
  resets: number
}

export interface StreamReaderDeps {
  connections: RedisConnections
  log: Logger
  /** Name of the flush marker, a key that only a flush of the database removes. */
  epochKey: string
  /** Replies should not be larger. */
  replyBytesMax: number
  count(label: string, commands: number): void
  /** Entries of one stream, in its order. */
  onEntries(stream: string, entries: Entry[]): void
  /** Entries of this stream may be missing before the next ones. */
  onGap(stream: string, gap: StreamGap): void
  /** The connection is back; no entries are known to be missing. */
  onReconnect(): void
  /** Whether the next entries should be read without waiting for more to batch. */
  isUrgent?: (() => boolean) | undefined
}

export function createStreamReader(deps: StreamReaderDeps): StreamReader {
  const { connections, log, epochKey, count } = deps
  const connection = connections.events
  const streams = new Map<string, ReadStream>()
  const pacer = createReadPacer(deps.isUrgent)
  const commands = createReaderCommands({ connection, epochKey, count, onTimeout })
  const interrupter = createReadInterrupter({ connections, count, shouldInterrupt })
  const cycle = createReadCycle({ ...deps, connection, streams, commands, interrupter })
  const loop = createReadLoop({ canRun: () => streams.size > 0 && connection.ready, run, onFailure })
  const pause = createPause()
  let resets = 0

  connection.client.on('ready', () => {
    cycle.connectionReplaced()
    interrupter.setClientId(undefined)
    loop.retryNow()
  })
  connection.client.on('close', () => degrade(CONNECTION_LOST))

  async function run(): Promise<void> {
    await cycle.begin()
    while (!loop.isClosed && streams.size > 0) {
      await cycle.check()
      if (cycle.state.backlog === 0) await pacer.next()
      if (loop.isClosed) break
      if (hasReadableStream(streams)) await cycle.read()
      else if (streams.size > 0) await pause.wait(UNREADABLE_PAUSE_MS)
    }
    cycle.end()
  }

  function onTimeout(): void {
    resets++
    degrade('Redis did not answer in time on the events connection')
  }

  function onFailure({ message }: Error): void {
    degrade(message)
    connection.failed(message)
    cycle.requireCheck()
  }

  function degrade(reason: string): void {
    if (cycle.state.phase === 'live' && !loop.isClosed)
      log.warn({ reason }, 'Job events are delayed; cached job statuses expire after one second')
    cycle.state = readingFailed(cycle.state, reason, streams.size)
  }

  function shouldInterrupt(): boolean {
    return commands.isReading && (hasUnreadStream(streams) || streams.size === 0 || loop.isClosed)
  }

  function add(key: string, position: string, eventless = false): void {
    if (streams.has(key)) return
    const addedAt = performance.now()
    const unread = { joined: false, broken: false, keptChecks: 0, unverifiedSince: undefined }
    streams.set(key, { position, addedAt, eventless, ...unread })
    pause.end()
    if (commands.isReading) interrupter.schedule()
    else loop.start()
  }

  function remove(key: string): void {
    streams.delete(key)
    if (streams.size > 0) return
    pause.end()
    cycle.state = lastStreamRemoved(cycle.state)
    interrupter.schedule()
  }

  function isLive(key: string): boolean {
    return isStreamLive(cycle.state, streams.get(key), connection.ready, performance.now())
  }

  function stats(): StreamReaderStats {
    const { status, reason } = readerHealth(cycle.state, streams.size, connection.ready)
    const { reads, entries, lagMs, gaps } = cycle.stats()
    return { status, reason, streams: streams.size, reads, entries, lagMs, gaps, resets }
  }

  function eventless(): string[] {
    return [...streams].filter(([, stream]) => stream.eventless).map(([key]) => key)
  }

  async function close(): Promise<void> {
    pacer.close()
    const closed = loop.close(interrupter.schedule)
    pause.end()
    await closed
    interrupter.close()
  }

  return { add, remove, isLive, eventless, stats, close }
}

/** How long to wait while no stream can be read. */
const UNREADABLE_PAUSE_MS = 1_000

/** A wait that can be ended early. */
function createPause() {
  let finish = () => {}
  return {
    wait: (ms: number) =>
      new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        finish = () => {
          clearTimeout(timer)
          resolve()
        }
      }),
    end: () => finish(),
  }
}
