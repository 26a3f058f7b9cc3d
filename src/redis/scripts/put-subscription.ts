/**
 * Writes or removes a webhook subscription if it still has the expected revision; put-subscription.lua is its
 * script.
 */
import type { Redis } from 'ioredis'
import type { Keyspace } from '../keyspace.ts'
import { loadScript, runScript } from './run-script.ts'

/** `expected`: the subscription must not exist, or have no revision. */
export const NO_REVISION = ''
/** `expected`: write in any case. */
export const ANY_REVISION = '*'

export interface SubscriptionWrite {
  queue: string
  /** The revision that Redis must have, or one of the constants above. */
  expected: string
  /** What to store; `undefined` removes the subscription. */
  next: { revision: string; json: string } | undefined
}

/**
 * `changed`: Redis has another revision. `tooMany`: the subscription would be new, and `max` exist already. `damaged`: the key
 * of the queues with a subscription is not a set.
 */
export type SubscriptionWriteResult = 'written' | 'changed' | 'tooMany' | 'damaged'

const script = loadScript('put-subscription')

const results = new Map<unknown, SubscriptionWriteResult>([
  [1, 'written'],
  [0, 'changed'],
  [-1, 'tooMany'],
  [-2, 'damaged'],
])

/** One command. `max`: how many subscriptions there may be in all. */
export async function putSubscription(
  client: Redis,
  keyspace: Pick<Keyspace, 'subscription' | 'subscriptions' | 'subscriptionsVersion'>,
  { queue, expected, next }: SubscriptionWrite,
  max: number,
): Promise<SubscriptionWriteResult> {
  const keys = [keyspace.subscription(queue), keyspace.subscriptions, keyspace.subscriptionsVersion]
  const args = [queue, expected, next?.revision ?? '', next?.json ?? '', max]
  const reply = await runScript(client, script, keys, args)
  const result = results.get(reply)
  if (!result) throw new Error(`put-subscription.lua returned ${String(reply)}`)
  return result
}
