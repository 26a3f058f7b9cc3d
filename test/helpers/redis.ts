/**
 * A real redis-server for a test file: private, on a unix socket, nothing on disk, gone when the file ends. Each test
 * takes a prefix of its own, so that none sees another's keys.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { type EmbeddedRedis, startEmbeddedRedis } from '../../src/redis/embedded.ts'

export interface TestRedis {
  socket: string
  /** A plain client, for looking at what is really there; closed with the server. */
  client: Redis
  stop(): Promise<void>
}

/** `args`: further lines for redis-server, such as `--maxmemory`. */
export async function startRedis(args: string[] = []): Promise<TestRedis> {
  const dataDir = await mkdtemp(join(tmpdir(), 'sluice-test-'))
  const server: EmbeddedRedis = await startEmbeddedRedis({
    dataDir,
    cacheDir: '.redis',
    path: process.env['PATH'] ?? '',
    ephemeral: true,
    args,
    log: () => {},
  })
  const client = new Redis({ path: server.socket, maxRetriesPerRequest: 1 })
  client.on('error', () => {})
  return {
    socket: server.socket,
    client,
    async stop() {
      client.disconnect()
      await server.close()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}

let prefixes = 0

/** A key prefix that no other test of this run has. */
export function uniquePrefix(): string {
  return `t${process.pid}-${prefixes++}`
}
