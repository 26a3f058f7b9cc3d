/** Creates BullMQ's queue backends on the `admin` connection, for rare operations that are left to BullMQ. */
import { QueueKeys, RedisConnection, RedisQueueBackend } from 'bullmq'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { Keyspace } from '../redis/keyspace.ts'

type BackendOptions = ConstructorParameters<typeof RedisQueueBackend>[4]

export type BackendFactory = (queue: string, opts: BackendOptions) => RedisQueueBackend

/** The backends send no commands of their own: no version check, no client name. */
export function createSharedBackends({ prefix }: Keyspace, connections: RedisConnections): BackendFactory {
  const connection = new RedisConnection(connections.admin.client, {
    shared: true,
    blocking: false,
    skipVersionCheck: true,
    // Otherwise a Redis that is unavailable at this moment would break every queue for good.
    skipWaitingForReady: true,
  })
  connection.on('error', () => {
    // Logged by connections.ts, which owns the socket.
  })
  const queueKeys = new QueueKeys(prefix)
  return function createBackend(queue, opts) {
    const toKey = (type: string) => queueKeys.toKey(queue, type)
    return new RedisQueueBackend(connection, queue, queueKeys.getKeys(queue), toKey, opts, undefined, false)
  }
}
