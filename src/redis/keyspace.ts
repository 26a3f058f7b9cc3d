/**
 * The names of all keys that this service reads or writes. BullMQ owns the keys of a queue
 * (`bull:emails:events`); ours start with `<prefix>::sluice:`. Queue names are never empty, so no queue or
 * job can have one of our names.
 */
export interface Keyspace {
  /** QUEUE_PREFIX, which BullMQ puts before every queue name: any text, also with colons (`app:prod`). */
  readonly prefix: string
  /** The beginning of every key of a queue: `bull:emails:`. */
  queueBase(queue: string): string
  /** Hash: a job. `key` is the job's id within its queue. */
  job(queue: string, key: string): string
  /** The inverse of `job`, as an id (`emails:42`). `undefined` for a key with another prefix. */
  jobIdOf(jobKey: string): string | undefined
  /** Hash: the settings of a queue; it exists once the queue had a job. */
  queueMeta(queue: string): string
  /** Stream: the events of a queue. */
  eventStream(queue: string): string
  /** The inverse of `eventStream`. */
  queueOfEventStream(stream: string): string
  /** Sorted set: names of the queues by their last use. BullMQ keeps no list of queues. */
  readonly knownQueues: string
  /** String that only a flush of the database removes. */
  readonly flushMarker: string
  /**
   * String: idempotency record, named by a digest of the idempotency key and its owner. enqueue.lua keeps the exact
   * fingerprint in a second string, with `:exact` at its end.
   */
  idempotencyRecord(digest: string): string
  /** String with an expiry: a replica has just checked the queue for stalled jobs. */
  stalledCheck(queue: string): string
  /** Set: names of the queues with a webhook subscription. */
  readonly subscriptions: string
  /** Counter: changes to subscriptions. */
  readonly subscriptionsVersion: string
  /** Hash: the webhook subscription of a queue. */
  subscription(queue: string): string
  /** Sorted set: jobs of a queue whose deliveries are in flight. */
  deliveries(queue: string): string
}

export function createKeyspace(prefix: string): Keyspace {
  const own = `${prefix}::sluice:`
  const eventsSuffix = ':events'
  return {
    prefix,
    queueBase: (queue) => `${prefix}:${queue}:`,
    jobIdOf: (jobKey) => (jobKey.startsWith(`${prefix}:`) ? jobKey.slice(prefix.length + 1) : undefined),
    job: (queue, key) => `${prefix}:${queue}:${key}`,
    queueMeta: (queue) => `${prefix}:${queue}:meta`,
    eventStream: (queue) => `${prefix}:${queue}${eventsSuffix}`,
    queueOfEventStream: (stream) => stream.slice(prefix.length + 1, -eventsSuffix.length),
    knownQueues: `${own}known-queues`,
    flushMarker: `${own}epoch`,
    idempotencyRecord: (digest) => `${own}idempotency:${digest}`,
    stalledCheck: (queue) => `${own}stalled-check:${queue}`,
    subscriptions: `${own}subscriptions`,
    subscriptionsVersion: `${own}subscriptions:version`,
    subscription: (queue) => `${own}subscription:${queue}`,
    deliveries: (queue) => `${own}deliveries:${queue}`,
  }
}
