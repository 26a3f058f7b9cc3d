/**
 * Subscriptions in Redis: a hash for each, a set of the queues that have one, and a version counter that
 * every write increments, so that other replicas notice a change with one GET.
 */

import { SluiceError } from '../../errors.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import {
  ANY_REVISION,
  NO_REVISION,
  putSubscription,
  SUBSCRIPTION_FIELD,
  type SubscriptionWrite,
} from '../../redis/scripts/put-subscription.ts'
import type { Subscription } from './subscription.ts'

export interface SubscriptionStore {
  /** Changes whenever any subscription is written or removed. */
  version(): Promise<string>
  all(): Promise<Subscription[]>
  find(queue: string): Promise<Subscription | undefined>
  /**
   * Compare and set: writes `after` if the stored revision is still that of `before` (`undefined`: no
   * subscription is stored), and resolves with whether it did. Rejects with TOO_MANY_SUBSCRIPTIONS.
   */
  write(after: Subscription, before: Subscription | undefined): Promise<boolean>
  /** Removes the subscription in any revision. */
  remove(queue: string): Promise<void>
}

const MAX_SUBSCRIPTIONS = 1_000

const READ: RedisOperation = { label: 'readSubscriptions', priority: 'list', isWrite: false, commands: 1 }
const WRITE: RedisOperation = { label: 'writeSubscription', priority: 'list', isWrite: true, commands: 1 }

export function createSubscriptionStore(keyspace: Keyspace, gateway: RedisGateway): SubscriptionStore {
  const { subscriptions: setKey, subscriptionsVersion: versionKey, subscription: keyOf } = keyspace

  async function version(): Promise<string> {
    return (await gateway.onAdmin(READ, (client) => client.get(versionKey))) ?? ''
  }

  async function all(): Promise<Subscription[]> {
    const queues = await gateway.onAdmin(READ, (client) => client.smembers(setKey))
    if (queues.length === 0) return []
    // One permit for all reads: the semaphore would refuse a thousand separate ones.
    const found = await gateway.onAdmin({ ...READ, commands: queues.length }, (client) =>
      Promise.all(queues.map((queue) => client.hget(keyOf(queue), SUBSCRIPTION_FIELD))),
    )
    return found.filter((text) => text !== null).map(parse)
  }

  async function find(queue: string): Promise<Subscription | undefined> {
    const text = await gateway.onAdmin(READ, (client) => client.hget(keyOf(queue), SUBSCRIPTION_FIELD))
    return text === null ? undefined : parse(text)
  }

  async function write(after: Subscription, before: Subscription | undefined): Promise<boolean> {
    const result = await put({
      queue: after.queue,
      expected: before?.revision ?? NO_REVISION,
      next: { revision: after.revision, json: JSON.stringify(after) },
    })
    if (result !== 'tooMany') return result === 'written'
    const detail = `${MAX_SUBSCRIPTIONS} subscriptions exist, which is the limit. Delete one that is not needed.`
    throw new SluiceError('TOO_MANY_SUBSCRIPTIONS', { detail, outcome: 'not_executed' })
  }

  async function remove(queue: string): Promise<void> {
    await put({ queue, expected: ANY_REVISION, next: undefined })
  }

  function put(change: SubscriptionWrite) {
    return gateway.onAdmin(WRITE, (client) => putSubscription(client, keyspace, change, MAX_SUBSCRIPTIONS))
  }

  return { version, all, find, write, remove }
}

function parse(text: string): Subscription {
  return JSON.parse(text) as Subscription
}
