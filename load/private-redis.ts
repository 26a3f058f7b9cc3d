/**
 * A private redis-server for a test or benchmark: on a unix socket, without persistence, removed when it is
 * stopped or when this process ends in any way.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { startEmbeddedRedis } from '../src/redis/embedded/embedded-redis.ts'
import { guardProcess } from './process-guard.ts'

export interface PrivateRedis {
  socket: string
  /** A plain client to inspect the data; closed with the server. */
  client: Redis
  stop(): Promise<void>
}

/** `args`: more arguments for redis-server, such as `--maxmemory`. */
export async function startRedis(args: string[] = []): Promise<PrivateRedis> {
  const dataDir = await mkdtemp(join(tmpdir(), 'sluice-'))
  const server = await startEmbeddedRedis({
    dataDir,
    cacheDir: '.redis',
    path: process.env['PATH'] ?? '',
    ephemeral: true,
    args,
    log: () => {},
  })
  const guard = guardProcess(server.pid, dataDir)
  const client = new Redis({ path: server.socket, maxRetriesPerRequest: 1 })
  client.on('error', () => {})
  return {
    socket: server.socket,
    client,
    async stop() {
      client.disconnect()
      await server.close()
      await guard.release()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}
