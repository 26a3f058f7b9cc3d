/**
 * One turn of the stream reader: checks the streams for gaps if a check is due, reads new entries and
 * delivers them. Owns the reader's state and counters; stream-reader.ts decides when a turn runs.
 */
import type { Logger } from 'pino'
import type { Connection } from '../connection/connection.ts'
import { createGapDetector, markEventless, type StreamGap } from './gap-detector.ts'
import { createLagWindow } from './lag-window.ts'
import type { ReadInterrupter } from './read-interrupter.ts'
import { firstCount, nextCount, sizeOfReply } from './read-size.ts'
import type { Entry, ReaderCommands } from './reader-commands.ts'
import { millisecondsOf } from './stream-position.ts'
import {
  blockMs,
  entriesReceived,
  hasReadableStream,
  hasUnverifiedStream,
  IDLE,
  isReadable,
  mayFollowTrim,
  type ReaderState,
  type ReadStream,
  readCompleted,
  readingStarted,
  readingStopped,
  replyArrived,
} from './stream-reader-state.ts'

export interface ReadCycle {
  state: ReaderState
  /** Call it before the first turn of a run. */
  begin(): Promise<void>
  /** The next run begins on a new connection. */
  connectionReplaced(): void
  /** Checks for gaps if a check is due. */
  check(): Promise<void>
  /** Makes the next turn check for gaps, even if no check is due. */
  requireCheck(): void
  /** Reads the streams that can be read once, and delivers the entries. Keys of other types are only checked. */
  read(): Promise<void>
  /** Call it after the last turn of a run. */
  end(): void
  stats(): ReadCycleStats
}

export interface ReadCycleStats {
  reads: number
  entries: number
  /**
   * Worst delay from the time in an entry's id to its delivery, on Redis' clock, over the last 10 to 20 s,
   * ms.
   */
  lagMs: number
  gaps: number
}

export interface ReadCycleDeps {
  connection: Connection
  streams: ReadonlyMap<string, ReadStream>
  commands: ReaderCommands
  interrupter: ReadInterrupter
  /** Replies should not be larger. */
  replyBytesMax: number
  log: Logger
  onEntries(stream: string, entries: Entry[]): void
  onGap(stream: string, gap: StreamGap): void
  onReconnect(): void
}

const CHECK_MS = 2_000

export function createReadCycle(deps: ReadCycleDeps): ReadCycle {
  const { connection, streams, commands, interrupter, replyBytesMax, log } = deps
  const { onGap, onReconnect } = deps
  const delivery = createEntryDelivery({ streams, onEntries: deps.onEntries, onTrimmed, update })
  let detectGaps = createGapDetector(commands.inspect)
  let isNewConnection = true
  let checkedAt = Number.NEGATIVE_INFINITY
  let clockOffsetMs = 0
  let reads = 0
  let gapCount = 0
  let count = 1

  async function begin(): Promise<void> {
    cycle.state = readingStarted(cycle.state)
    if (!isNewConnection) return
    // Some proxies do not support CLIENT ID. Reads then cannot be interrupted and have to be short.
    await commands.clientId().then(interrupter.setClientId, (error: Error) => {
      if (!connection.ready) throw error
    })
    // Reading continues at the same positions, but a failover may have lost entries that were already
    // delivered.
    if (reads > 0) onReconnect()
    isNewConnection = false
    count = firstCount(streams.size)
    requireCheck()
  }

  function requireCheck(): void {
    checkedAt = Number.NEGATIVE_INFINITY
  }

  async function check(): Promise<void> {
    if (performance.now() - checkedAt < CHECK_MS && !hasUnverifiedStream(streams)) return
    const report = await detectGaps(streams)
    clockOffsetMs = report.clockOffsetMs
    checkedAt = performance.now()
    for (const [stream, gap] of report.gaps) reportGap(stream, gap)
    if (!hasReadableStream(streams)) cycle.state = readCompleted(cycle.state)
  }

  function reportGap(key: string, gap: StreamGap): void {
    gapCount++
    // A queue that keeps no events has a gap at every check. The health routes report it.
    if (!streams.get(key)?.eventless)
      log.warn({ stream: key, gap }, 'Job events may have been missed; cached job statuses are invalidated')
    onGap(key, gap)
  }

  function update(change: (state: ReaderState) => ReaderState): void {
    cycle.state = change(cycle.state)
  }

  function onTrimmed(key: string, stream: ReadStream): void {
    markEventless(stream)
    reportGap(key, 'trimmed')
  }

  async function read(): Promise<void> {
    const readable = [...streams].filter(([, stream]) => isReadable(stream))
    for (const [, stream] of readable) stream.joined = true
    try {
      const reply = await commands.read(readable, count, blockMs(cycle.state, interrupter.canInterrupt))
      reads++
      const redisNowMs = performance.now() - clockOffsetMs
      delivery.deliver(new Map(readable), reply, { countMax: count, redisNowMs })
      count = nextCount(count, sizeOfReply(reply), replyBytesMax)
    } catch (error) {
      if (!(error as Error).message.startsWith('WRONGTYPE')) throw error
      await leaveOutBroken(readable, error)
    }
    cycle.state = readCompleted(cycle.state)
  }

  /** One key of another type fails the whole read. Throws the error if none is found. */
  async function leaveOutBroken(readable: [string, ReadStream][], error: unknown): Promise<void> {
    requireCheck()
    await check()
    if (readable.every(([, stream]) => isReadable(stream))) throw error
  }

  function end(): void {
    cycle.state = readingStopped(cycle.state)
    // A flush while no stream is read is not a gap, so the next run must not compare with the last epoch.
    detectGaps = createGapDetector(commands.inspect)
  }

  const cycle: ReadCycle = {
    state: IDLE,
    begin,
    connectionReplaced() {
      isNewConnection = true
    },
    check,
    requireCheck,
    read,
    end,
    stats: () => ({ reads, gaps: gapCount, ...delivery.stats() }),
  }
  return cycle
}

interface EntryDelivery {
  /** Delivers the entries of a reply to a read of `readable`. */
  deliver(
    readable: ReadonlyMap<string, ReadStream>,
    reply: [string, Entry[]][],
    read: { countMax: number; redisNowMs: number },
  ): void
  stats(): Pick<ReadCycleStats, 'entries' | 'lagMs'>
}

function createEntryDelivery({
  streams,
  onEntries,
  onTrimmed,
  update,
}: Pick<ReadCycleDeps, 'streams' | 'onEntries'> & {
  /** The new entries of the stream were trimmed as they were added. */
  onTrimmed(key: string, stream: ReadStream): void
  update(change: (state: ReaderState) => ReaderState): void
}): EntryDelivery {
  const lag = createLagWindow()
  let entriesRead = 0
  return {
    deliver(readable, reply, { countMax, redisNowMs }) {
      update(replyArrived)
      for (const [key, entries] of reply) {
        const stream = readable.get(key)
        // The stream was removed during the read, and may have been added again at another position.
        if (!stream || streams.get(key) !== stream) continue
        const [first] = entries
        if (!first) {
          onTrimmed(key, stream)
          continue
        }
        lag.record(redisNowMs - millisecondsOf(first[0]))
        entriesRead += entries.length
        update((state) => entriesReceived(state, entries.length, countMax))
        if (mayFollowTrim(entries.length, stream.length, countMax)) stream.unverifiedSince ??= stream.position
        stream.position = entries.at(-1)![0]
        onEntries(key, entries)
      }
    },
    stats: () => ({ entries: entriesRead, lagMs: lag.worstMs() }),
  }
}
