/**
 * Every key that this service reads or writes by name. Keys of a queue are BullMQ's own (`bull:emails:events`); keys of the
 * service start with `<prefix>::sluice:`. No queue name is empty, so no queue and no job can spell one of those.
 */
export interface Keyspace {
  /** QUEUE_PREFIX: what BullMQ puts before the name of every queue. */
  readonly prefix: string
  /** What every key of a queue starts with: `bull:emails:`. */
  queueBase(queue: string): string
  /** Hash of a job. */
  job(queue: string, key: string): string
  /** Stream to which BullMQ writes the events of a queue. */
  eventStream(queue: string): string
  /** The inverse of `eventStream`. */
  queueOfEventStream(stream: string): string
  /** Set of the queues that hold jobs; BullMQ keeps no list of queues. */
  readonly knownQueues: string
  /** Exists for as long as the database is not flushed. */
  readonly flushMarker: string
  /** Record of an idempotency key, named by a digest of the key and its owner. */
  idempotencyRecord(digest: string): string
  /** Exists while another replica has just looked for stalled jobs of a queue. */
  stalledCheck(queue: string): string
  /** Set of the queues that have a webhook subscription. */
  readonly subscriptions: string
  /** Counter of changes to subscriptions. */
  readonly subscriptionsVersion: string
  /** Hash of the subscription of a queue. */
  subscription(queue: string): string
  /** Sorted set of the jobs of a queue that are being delivered to its webhook. */
  deliveries(queue: string): string
}

export function createKeyspace(prefix: string): Keyspace {
  const own = `${prefix}::sluice:`
  const eventsSuffix = ':events'
  return {
    prefix,
    queueBase: (queue) => `${prefix}:${queue}:`,
    job: (queue, key) => `${prefix}:${queue}:${key}`,
    eventStream: (queue) => `${prefix}:${queue}${eventsSuffix}`,
    queueOfEventStream: (stream) => stream.slice(prefix.length + 1, -eventsSuffix.length),
    knownQueues: `${own}queues`,
    flushMarker: `${own}epoch`,
    idempotencyRecord: (digest) => `${own}idempotency:${digest}`,
    stalledCheck: (queue) => `${own}stalled-check:${queue}`,
    subscriptions: `${own}subscriptions`,
    subscriptionsVersion: `${own}subscriptions:version`,
    subscription: (queue) => `${own}subscription:${queue}`,
    deliveries: (queue) => `${own}deliveries:${queue}`,
  }
}
