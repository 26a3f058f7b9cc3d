/**
 * Where jobs may be enqueued: into any queue with a plain name, and into an existing queue of any other name. Only a native
 * producer can have created such a queue, so that no mistake in a request creates one.
 */
import { SluiceError } from '../../errors.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../../redis/keyspace.ts'

/** Sends one command; rejects with INVALID_NAME if the queue does not exist. Not needed for a plain name. */
export type AssertExists = (queue: string) => Promise<void>

const EXISTS: RedisOperation = { label: 'queueExists', priority: 'enqueue', isWrite: false, commands: 1 }

export function createAssertExists(keyspace: Keyspace, gateway: RedisGateway): AssertExists {
  return async function assertExists(queue) {
    const found = await gateway.onQueue(queue, EXISTS, (client) => client.exists(keyspace.queueMeta(queue)))
    if (found === 1) return
    const detail =
      'is not the name of an existing queue. A new queue gets 1 to 100 characters of A-Z a-z 0-9 _ . - as its name; one with ' +
      'another name has to be created by a BullMQ producer first'
    throw new SluiceError('INVALID_NAME', {
      errors: [{ pointer: '/queue', detail }],
      outcome: 'not_executed',
    })
  }
}
