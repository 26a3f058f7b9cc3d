/**
 * Subscriptions in Redis: a hash for each, a set of the queues that have one, and a version counter that
 * every write increments, so that other replicas notice a change with one GET.
 */

import { SluiceError } from '../../errors.ts'
import { isQueueName } from '../../queues/queue-name.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import { ownKeyDamaged } from '../../redis/redis-errors.ts'
import {
  ANY_REVISION,
  NO_REVISION,
  putSubscription,
  type SubscriptionWrite,
} from '../../redis/scripts/put-subscription.ts'
import { readSubscriptions } from '../../redis/scripts/read-subscriptions.ts'
import type { Subscription } from './subscription.ts'
import { parseSubscription, type StoredSubscription } from './subscription-record.ts'

export interface SubscriptionStore {
  /** Changes whenever any subscription is written or removed. `undefined`: the counter itself cannot be read. */
  version(): Promise<string | undefined>
  all(): Promise<StoredSubscriptions>
  find(queue: string): Promise<StoredSubscription | undefined>
  /**
   * Compare and set: writes `after` if the stored revision is still that of `before` (`undefined`: no
   * subscription is stored), and resolves with whether it did. Rejects with TOO_MANY_SUBSCRIPTIONS.
   */
  write(after: Subscription, before: StoredSubscription | undefined): Promise<boolean>
  /** Removes the subscription in any revision. */
  remove(queue: string): Promise<void>
  /** How many new subscriptions were refused because there were too many. */
  refused(): number
}

export interface StoredSubscriptions {
  subscriptions: StoredSubscription[]
  /** False when Redis has more than `maxSubscriptions`; the rest was not read. */
  isComplete: boolean
}

/** Queues that SSCAN returns, more or less. */
const PAGE = 250

const READ: RedisOperation = { label: 'readSubscriptions', priority: 'list', isWrite: false, commands: 1 }
const WRITE: RedisOperation = { label: 'writeSubscription', priority: 'list', isWrite: true, commands: 1 }

export function createSubscriptionStore(
  keyspace: Keyspace,
  gateway: RedisGateway,
  maxSubscriptions: number,
): SubscriptionStore {
  const { subscriptions: setKey, subscriptionsVersion: versionKey } = keyspace
  let refused = 0

  async function version(): Promise<string | undefined> {
    try {
      return (await gateway.onAdmin(READ, (client) => client.get(versionKey))) ?? ''
    } catch (error) {
      if ((error as SluiceError).code === 'QUEUE_DAMAGED') return undefined
      throw error
    }
  }

  /** In commands of bounded size. */
  async function all(): Promise<StoredSubscriptions> {
    const found = new Map<string, StoredSubscription>()
    let cursor = '0'
    do {
      const [next, names] = await readNames(cursor)
      cursor = next
      for (const stored of await read(names.filter(isQueueName))) {
        if (found.size >= maxSubscriptions && !found.has(stored.queue))
          return { subscriptions: [...found.values()], isComplete: false }
        found.set(stored.queue, stored)
      }
    } while (cursor !== '0')
    return { subscriptions: [...found.values()], isComplete: true }
  }

  async function readNames(cursor: string): Promise<[cursor: string, names: string[]]> {
    try {
      return await gateway.onAdmin(READ, (client) => client.sscan(setKey, cursor, 'COUNT', PAGE))
    } catch (error) {
      throw (error as SluiceError).code === 'QUEUE_DAMAGED' ? namesDamaged() : error
    }
  }

  function namesDamaged(): SluiceError {
    const repair = 'delete it, then put each subscription again; DELETE and PUT are refused until then.'
    return ownKeyDamaged(setKey, 'which lists the queues with a subscription', repair)
  }

  async function read(queues: string[]): Promise<StoredSubscription[]> {
    const found: StoredSubscription[] = []
    for (let at = 0; at < queues.length; ) {
      const rest = queues.slice(at, at + PAGE)
      const entries = await gateway.onAdmin(READ, (client) => readSubscriptions(client, keyspace, rest))
      for (const [index, fields] of entries.entries()) {
        const stored = parseSubscription(rest[index]!, fields)
        if (stored) found.push(stored)
      }
      at += entries.length
    }
    return found
  }

  async function find(queue: string): Promise<StoredSubscription | undefined> {
    const [stored] = await read([queue])
    return stored
  }

  async function write(after: Subscription, before: StoredSubscription | undefined): Promise<boolean> {
    const result = await put({
      queue: after.queue,
      expected: before?.revision ?? NO_REVISION,
      next: { revision: after.revision, json: JSON.stringify(after) },
    })
    if (result !== 'tooMany') return result === 'written'
    refused++
    const detail =
      `${maxSubscriptions} subscriptions exist, which is the limit. Delete one that is not needed. ` +
      'Operator: WEBHOOK_MAX_SUBSCRIPTIONS sets the limit.'
    throw new SluiceError('TOO_MANY_SUBSCRIPTIONS', { detail, outcome: 'not_executed' })
  }

  async function remove(queue: string): Promise<void> {
    await put({ queue, expected: ANY_REVISION, next: undefined })
  }

  async function put(change: SubscriptionWrite): Promise<'written' | 'changed' | 'tooMany'> {
    const result = await gateway.onAdmin(WRITE, (client) =>
      putSubscription(client, keyspace, change, maxSubscriptions),
    )
    if (result === 'damaged') throw namesDamaged()
    return result
  }

  return { version, all, find, write, remove, refused: () => refused }
}
