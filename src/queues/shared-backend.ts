/**
 * BullMQ's backend of a queue on a connection that is already there: for what is asked seldom, and left to BullMQ whole. It
 * sends nothing of its own.
 */

import { QueueKeys, RedisConnection, RedisQueueBackend } from 'bullmq'
import type { RedisConnections } from '../redis/connection/connections.ts'
import type { Keyspace } from '../redis/keyspace.ts'

type BackendOptions = ConstructorParameters<typeof RedisQueueBackend>[4]

export type BackendFactory = (queue: string, opts: BackendOptions) => RedisQueueBackend

/** On the connection for slow work. */
export function createSharedBackends({ prefix }: Keyspace, connections: RedisConnections): BackendFactory {
  // `skip…`: BullMQ sends nothing of its own, and a Redis that is away at this moment cannot break the queue for good.
  const connection = new RedisConnection(connections.admin.client, {
    ...{ shared: true, blocking: false, skipVersionCheck: true, skipWaitingForReady: true },
  })
  connection.on('error', () => {
    // Told by connections.ts, which owns the socket.
  })
  const queueKeys = new QueueKeys(prefix)
  return (queue, opts) => {
    const toKey = (type: string) => queueKeys.toKey(queue, type)
    return new RedisQueueBackend(connection, queue, queueKeys.getKeys(queue), toKey, opts, undefined, false)
  }
}
