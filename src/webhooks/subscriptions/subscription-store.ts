/** Subscriptions in Redis: one hash each, the set of those that there are, and a counter that tells every replica of a change. */

import { SluiceError } from '../../errors.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import { putSubscriptionScript, runScript } from '../../redis/scripts/run-script.ts'
import type { Subscription } from './subscription.ts'

export interface SubscriptionStore {
  /** Changes with every change of any of them. */
  version(): Promise<string>
  all(): Promise<Subscription[]>
  find(queue: string): Promise<Subscription | undefined>
  /** False when it is not as `before` any more. Rejects with TOO_MANY_SUBSCRIPTIONS. */
  write(after: Subscription, before: Subscription | undefined): Promise<boolean>
  remove(queue: string): Promise<void>
  /** The hash, whose `revision` is looked at with every take. */
  keyOf(queue: string): string
}

const MOST = 1_000

const READ: RedisOperation = { label: 'readSubscriptions', priority: 'list', isWrite: false, commands: 1 }
const WRITE: RedisOperation = { label: 'writeSubscription', priority: 'list', isWrite: true, commands: 1 }

/** Of the hash; beside it stands its `revision`. */
const FIELD = 'subscription'

const parse = (text: string) => JSON.parse(text) as Subscription

export function createSubscriptionStore(keyspace: Keyspace, gateway: RedisGateway): SubscriptionStore {
  const { subscriptions: setKey, subscriptionsVersion: versionKey, subscription: keyOf } = keyspace

  async function find(queue: string): Promise<Subscription | undefined> {
    const text = await gateway.onAdmin(READ, (client) => client.hget(keyOf(queue), FIELD))
    return text === null ? undefined : parse(text)
  }

  function put(queue: string, expected: string, next: string, json: string): Promise<unknown> {
    const keys = [keyOf(queue), setKey, versionKey]
    return gateway.onAdmin(WRITE, (client) =>
      runScript(client, putSubscriptionScript, keys, [queue, expected, next, json, MOST]),
    )
  }

  return {
    keyOf,
    find,
    version: async () => (await gateway.onAdmin(READ, (client) => client.get(versionKey))) ?? '',
    async all() {
      const queues = await gateway.onAdmin(READ, (client) => client.smembers(setKey))
      if (queues.length === 0) return []
      // One permit for all of them: a thousand would be refused.
      const found = await gateway.onAdmin({ ...READ, commands: queues.length }, (client) =>
        Promise.all(queues.map((queue) => client.hget(keyOf(queue), FIELD))),
      )
      return found.filter((text) => text !== null).map(parse)
    },
    async write(after, before) {
      const written = await put(after.queue, before?.revision ?? '', after.revision, JSON.stringify(after))
      if (written !== -1) return written === 1
      const detail = `There are ${MOST} subscriptions already. Delete one that is not needed.`
      throw new SluiceError('TOO_MANY_SUBSCRIPTIONS', { detail, outcome: 'not_executed' })
    },
    remove: async (queue) => void (await put(queue, '*', '', '')),
  }
}
