/** Reads webhook subscriptions in a bounded number of bytes; read-subscriptions.lua is its script. */
import type { Redis } from 'ioredis'
import type { Keyspace } from '../keyspace.ts'
import { loadScript, runScript } from './run-script.ts'

/** The fields of a subscription's hash; an empty text for a field that is missing. Or why they were not read. */
export type SubscriptionFields = { revision: string; json: string } | 'none' | 'wrongType' | 'tooLarge'

/** About twice the largest that the API writes. */
const MAX_BYTES = 131_072
const ENOUGH_BYTES = 1_048_576

const script = loadScript('read-subscriptions')

/**
 * One command. Resolves with the subscriptions of the first queues, in order: of all of them, unless they are large, and
 * of at least one.
 */
export async function readSubscriptions(
  client: Redis,
  keyspace: Pick<Keyspace, 'subscription'>,
  queues: string[],
): Promise<SubscriptionFields[]> {
  const reply = (await runScript(client, script, queues.map(keyspace.subscription), [
    MAX_BYTES,
    ENOUGH_BYTES,
  ])) as ([revision: string, json: string] | Exclude<SubscriptionFields, object>)[]
  return reply.map((entry) => (typeof entry === 'string' ? entry : { revision: entry[0], json: entry[1] }))
}
