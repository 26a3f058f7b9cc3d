/**
 * One blocking XREAD over any number of streams, on the `events` connection, for as long as somebody wants any of them.
 *
 *   idle ─ add → catching up ─ first answer → live ─ connection lost, no answer in time, error → catching up …
 *
 * The set of streams is changed by CLIENT UNBLOCK from another connection. Under load there is a short pause between
 * reads, so that thousands of entries cost a handful of commands. Every CHECK_MS, after each reconnect, and when a read
 * brought so much that something may have been trimmed before it, a look at the streams tells gaps and flushes.
 */
import type { Logger } from 'pino'
import type { RedisConnections } from '../connection/connections.ts'
import { inspectStreamsScript, runScript } from '../scripts/run-script.ts'
import { createGapDetector, type StreamGap, type WatchedStream } from './gap-detector.ts'
import { createReadInterrupter } from './read-interrupter.ts'
import { createLagWindow, createReadPacer } from './read-pacer.ts'
import { millisecondsOf } from './stream-position.ts'

export interface StreamReader {
  /** Delivers what comes after `place`. A stream that is read already goes on from where it is. */
  add(stream: string, place: string): void
  remove(stream: string): void
  /** Whether what is in the stream reaches us within a moment. */
  isLive(stream: string): boolean
  stats(): StreamReaderStats
  close(): Promise<void>
}

export interface StreamReaderStats {
  /** idle: nothing to read. live: what happens is heard. degraded: it is not, or late; `reason` says why. */
  status: 'idle' | 'live' | 'degraded'
  reason: string | null
  streams: number
  reads: number
  entries: number
  /** From the entry's own time, on Redis' clock, to its delivery here: the worst of the last 10 to 20 s, ms. */
  lagMs: number
  gaps: number
  resets: number
}

export type Entry = [id: string, fields: string[]]

export interface StreamReaderDeps {
  connections: RedisConnections
  log: Logger
  /** The key that tells a flush of the database. */
  epochKey: string
  count(label: string, commands: number): void
  /** In the order of the stream. */
  onEntries(stream: string, entries: Entry[]): void
  /** Entries may be missing before the next ones of this stream. */
  onGap(stream: string, gap: StreamGap): void
  /** The connection is back; nothing is known to be missing. */
  onReconnect(): void
  /** Whether news cannot wait for others to come with them. */
  isUrgent?: (() => boolean) | undefined
}

/** While nothing happens: one read and one look in this time. */
const BLOCK_MS = 2_000
const CHECK_MS = 2_000
/** Silent for this long past BLOCK_MS, the socket is taken for dead. */
const GRACE_MS = 1_000
/** Where CLIENT UNBLOCK is not allowed, new streams have to wait for the end of a read. */
const BLOCK_WITHOUT_UNBLOCK_MS = 80
/** A stream that was added may wait this long until it is read and still counts as live. */
const JOIN_MS = 100
/** Most entries of one stream in one read. */
const COUNT = 1_000
/** Streams are trimmed by whole nodes of a hundred entries: a shorter read cannot have followed a trim. */
const NODE_ENTRIES = 100
const RETRY_MS = 1_000

type XreadArguments = Parameters<RedisConnections['events']['client']['xread']>

interface Stream extends WatchedStream {
  addedAt: number
}

export function createStreamReader(deps: StreamReaderDeps): StreamReader {
  const { connections, log, epochKey, count, onEntries, onGap, onReconnect } = deps
  const connection = connections.events
  const { client } = connection
  const streams = new Map<string, Stream>()
  const turns = createReadPacer(deps.isUrgent)
  const lag = createLagWindow()
  const interrupter = createReadInterrupter({ connections, count, isWanted: () => isReading && hasNew() })
  let look = createGapDetector(epochKey, runCheck)
  let running: Promise<void> | undefined
  let closing = false
  /** All that had happened when the last read ended has been delivered. */
  let caughtUp = false
  /** A read came back full: there is more. */
  let behind = false
  let reason: string | null = null
  let isNewConnection = true
  let isReading = false
  let checkedAt = Number.NEGATIVE_INFINITY
  let clockOffsetMs = 0
  let retryTimer: NodeJS.Timeout | undefined
  let reads = 0
  let entriesRead = 0
  let gaps = 0
  let resets = 0

  client.on('ready', () => {
    isNewConnection = true
    interrupter.identify(undefined)
    clearTimeout(retryTimer)
    retryTimer = undefined
    start()
  })
  client.on('close', () => degrade('The events connection is lost'))

  function start(): void {
    if (closing || running || retryTimer || streams.size === 0 || !connection.ready) return
    running = run()
      .catch((error: Error) => {
        if (closing) return
        degrade(error.message)
        connection.failed(error.message)
        checkedAt = Number.NEGATIVE_INFINITY
        if (connection.ready) {
          retryTimer = setTimeout(() => {
            retryTimer = undefined
            start()
          }, RETRY_MS)
        }
      })
      .finally(() => {
        running = undefined
        // Something may have been added, or the connection have come back, while this run was ending.
        start()
      })
  }

  function degrade(why: string): void {
    if (caughtUp && !closing)
      log.warn({ reason: why }, 'job events are not heard; a status is kept for a second only')
    caughtUp = false
    if (streams.size > 0) reason = why
  }

  async function run(): Promise<void> {
    if (isNewConnection) {
      // Some proxies give no id; then a read cannot be interrupted, and has to be short.
      await send('clientId', () => client.client('ID')).then(interrupter.identify, (error: Error) => {
        if (!connection.ready) throw error
      })
      // Entries are read on from the same places; but a failover may have lost what was read, and is kept, here.
      if (reads > 0) onReconnect()
      isNewConnection = false
      checkedAt = Number.NEGATIVE_INFINITY
    }
    while (!closing && streams.size > 0) {
      if (performance.now() - checkedAt >= CHECK_MS || anyDoubtful()) await check()
      if (!behind) await turns.next()
      if (closing) break
      const asked = [...streams].filter(([, { broken }]) => !broken)
      deliver(new Map(asked), await read(asked))
      caughtUp = true
      reason = null
    }
    // Nobody looks: what happens from here on is not heard, and need not be.
    caughtUp = false
    look = createGapDetector(epochKey, runCheck)
  }

  function runCheck(keys: string[], args: string[]): Promise<unknown> {
    return send('checkStreams', () => runScript(client, inspectStreamsScript, keys, args))
  }

  /** A command on the events connection; one that is not answered in time costs the connection. */
  async function send<T>(label: string, command: () => Promise<T>, waitMs = 0): Promise<T> {
    const watchdog = setTimeout(() => {
      resets++
      degrade('Redis did not answer in time on the events connection')
      client.disconnect(true)
    }, waitMs + GRACE_MS)
    count(label, 1)
    try {
      return await command()
    } finally {
      clearTimeout(watchdog)
    }
  }

  async function read(readable: [string, Stream][]): Promise<[string, Entry[]][]> {
    if (readable.length === 0) throw new Error('Nothing that is watched is a stream')
    for (const [, stream] of readable) stream.joined = true
    // To catch up is not to wait: it has to be known whether there is anything.
    const blockMs = !caughtUp || behind ? 0 : interrupter.works ? BLOCK_MS : BLOCK_WITHOUT_UNBLOCK_MS
    const args = [
      ...['COUNT', `${COUNT}`, ...(blockMs > 0 ? ['BLOCK', `${blockMs}`] : []), 'STREAMS'],
      ...readable.map(([key]) => key),
      ...readable.map(([, { position: place }]) => place),
    ]
    isReading = true
    try {
      return ((await send('readEvents', () => client.xread(...(args as XreadArguments)), blockMs)) ?? []) as [
        string,
        Entry[],
      ][]
    } finally {
      isReading = false
    }
  }

  function deliver(asked: ReadonlyMap<string, Stream>, reply: [string, Entry[]][]): void {
    reads++
    behind = false
    const redisNow = Date.now() - clockOffsetMs
    for (const [key, entries] of reply) {
      const stream = asked.get(key)
      // Removed meanwhile, and maybe added again at another place, from which this does not go on.
      if (!stream || streams.get(key) !== stream) continue
      lag.note(redisNow - millisecondsOf(entries[0]![0]))
      entriesRead += entries.length
      behind ||= entries.length >= COUNT
      if (entries.length >= Math.max(NODE_ENTRIES / 2, (stream.length ?? 0) - NODE_ENTRIES)) {
        stream.doubtfulSince ??= stream.position
      }
      stream.position = entries.at(-1)![0]
      onEntries(key, entries)
    }
  }

  function anyDoubtful(): boolean {
    for (const { doubtfulSince } of streams.values()) if (doubtfulSince !== undefined) return true
    return false
  }

  async function check(): Promise<void> {
    const { clockOffsetMs: offset, found } = await look(streams)
    clockOffsetMs = offset
    checkedAt = performance.now()
    for (const [key, gap] of found) {
      gaps++
      log.warn({ stream: key, gap }, 'job events may have been missed; what was kept of them is dropped')
      onGap(key, gap)
    }
  }

  function hasNew(): boolean {
    for (const { joined, broken } of streams.values()) if (!joined && !broken) return true
    return streams.size === 0 || closing
  }

  return {
    add(key, place) {
      if (streams.has(key)) return
      const addedAt = performance.now()
      streams.set(key, { position: place, addedAt, joined: false, broken: false, doubtfulSince: undefined })
      if (isReading) interrupter.soon()
      else start()
    },
    remove(key) {
      streams.delete(key)
      if (streams.size === 0) {
        reason = null
        interrupter.soon()
      }
    },
    isLive(key) {
      const stream = streams.get(key)
      if (!stream || stream.broken || behind || reason !== null) return false
      if (caughtUp && stream.joined) return true
      return connection.ready && performance.now() - stream.addedAt < JOIN_MS
    },
    stats() {
      const degraded = behind ? 'More happens than is read' : reason
      const late = streams.size > 0 && !caughtUp && !connection.ready ? 'The events connection is lost' : null
      const why = streams.size === 0 ? null : (degraded ?? late)
      const status = why !== null ? 'degraded' : streams.size === 0 ? 'idle' : 'live'
      return {
        ...{ status, reason: why, streams: streams.size, reads, entries: entriesRead },
        ...{ lagMs: lag.worstMs(), gaps, resets },
      }
    },
    async close() {
      closing = true
      clearTimeout(retryTimer)
      turns.close()
      for (let tries = 0; running && tries < 20; tries++) {
        interrupter.soon()
        await Promise.race([running, new Promise((resolve) => setTimeout(resolve, 25))])
      }
      interrupter.close()
    },
  }
}
