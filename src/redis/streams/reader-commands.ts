/**
 * The commands that the stream reader sends on the `events` connection. If a reply is overdue, the connection
 * is replaced, because ioredis would keep waiting for a dead socket.
 */
import type { Connection } from '../connection/connection.ts'
import { inspectStreams, type StreamInspection } from '../scripts/inspect-streams.ts'

export type Entry = [id: string, fields: string[]]

export type ReadRequest = [key: string, { position: string }]

export interface ReaderCommands {
  clientId(): Promise<number>
  inspect(streams: string[]): Promise<StreamInspection>
  /**
   * Resolves with the new entries, at most `count`, of each stream that has any, and with none of a stream whose
   * new entries were trimmed as they were added. Blocks for up to `blockMs` while there are none; 0: not at all.
   */
  read(streams: ReadRequest[], count: number, blockMs: number): Promise<[key: string, Entry[]][]>
  /** Whether a `read` is in progress. */
  readonly isReading: boolean
}

export interface ReaderCommandsDeps {
  connection: Connection
  epochKey: string
  count(label: string, commands: number): void
  /** A reply is overdue; the connection is about to be replaced. */
  onTimeout(): void
}

/** How long a reply may take beyond the time that a read may block. */
const REPLY_TIMEOUT_MS = 1_000

type XreadArguments = Parameters<Connection['client']['xread']>

export function createReaderCommands({
  connection: { client },
  epochKey,
  count,
  onTimeout,
}: ReaderCommandsDeps): ReaderCommands {
  let isReading = false

  async function send<T>(label: string, command: () => Promise<T>, blockMs = 0): Promise<T> {
    const watchdog = setTimeout(() => {
      onTimeout()
      client.disconnect(true)
    }, blockMs + REPLY_TIMEOUT_MS)
    count(label, 1)
    try {
      return await command()
    } finally {
      clearTimeout(watchdog)
    }
  }

  return {
    clientId: () => send('clientId', () => client.client('ID')),
    inspect: (streams) => send('checkStreams', () => inspectStreams(client, epochKey, streams)),
    async read(streams, entryCount, blockMs) {
      const block = blockMs > 0 ? ['BLOCK', `${blockMs}`] : []
      const keys = streams.map(([key]) => key)
      const positions = streams.map(([, { position }]) => position)
      const args = ['COUNT', `${entryCount}`, ...block, 'STREAMS', ...keys, ...positions] as unknown
      isReading = true
      try {
        const reply = await send('readEvents', () => client.xread(...(args as XreadArguments)), blockMs)
        return (reply ?? []) as [string, Entry[]][]
      } finally {
        isReading = false
      }
    },
    get isReading() {
      return isReading
    },
  }
}
