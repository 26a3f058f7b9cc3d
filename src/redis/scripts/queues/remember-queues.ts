/** Records that queues are in use, in the sorted set of known queues. */
import type { Redis } from 'ioredis'
import { loadScript, runScript } from '../run-script.ts'

const script = loadScript('queues/remember-queues')

/** Bounds of the set of known queues. */
export interface KnownQueuesBounds {
  maxNames: number
  /** A name that was not used for so long is checked, and forgotten if its queue is empty. */
  idleMs: number
  /** Most names that one command checks. */
  pageSize: number
}

export interface RememberReply {
  /** Names removed because there were more than the maximum. */
  displaced: number
  /** Names in the set. */
  known: number
  /** Names to check with pruneQueues, the oldest first. */
  due: string[]
}

/** One command. `names` may be empty. Rejects as Redis does. */
export async function rememberQueues(
  client: Redis,
  key: string,
  { maxNames, idleMs, pageSize }: KnownQueuesBounds,
  names: string[],
): Promise<RememberReply> {
  const reply = await runScript(client, script, [key], [maxNames, idleMs, pageSize, ...names])
  const [displaced, known, due] = reply as [number, number, string[]]
  return { displaced, known, due }
}
