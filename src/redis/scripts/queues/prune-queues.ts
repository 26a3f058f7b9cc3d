/** Forgets names of queues that are empty and have not been used for a time. */
import type { Redis } from 'ioredis'
import { loadScript, runScript } from '../run-script.ts'
import type { KnownQueuesBounds, RememberReply } from './remember-queues.ts'

const script = loadScript('queues/prune-queues')

/** Keys of a queue that exist while it holds a job or a schedule. */
const HOLDING = [
  'wait',
  'paused',
  'active',
  'delayed',
  'prioritized',
  'waiting-children',
  'completed',
  'failed',
  'repeat',
]

export interface QueueToCheck {
  name: string
  /** What its keys start with: `bull:emails:`. */
  base: string
  /** One more key that keeps the name: that of its subscription. */
  subscription: string
}

export interface PruneReply extends RememberReply {
  forgotten: number
}

/** One command. Rejects as Redis does. */
export async function pruneQueues(
  client: Redis,
  key: string,
  { maxNames, idleMs, pageSize }: KnownQueuesBounds,
  queues: QueueToCheck[],
): Promise<PruneReply> {
  const keys = queues.flatMap(({ base, subscription }) => [
    ...HOLDING.map((name) => base + name),
    subscription,
  ])
  const names = queues.map(({ name }) => name)
  const args = [maxNames, idleMs, pageSize, HOLDING.length + 1, ...names]
  const reply = await runScript(client, script, [key, ...keys], args)
  const [forgotten, displaced, known, due] = reply as [number, number, number, string[]]
  return { forgotten, displaced, known, due }
}
