/**
 * DURABILITY_REPLICAS: a job is acknowledged when so many replicas have it. WAIT speaks of all that was sent before it on
 * its connection, so one WAIT confirms every batch that Redis has answered meanwhile (group commit).
 */
import type { Redis } from 'ioredis'
import { SluiceError } from '../../errors.ts'

/** Resolves when enough replicas have what was written on this connection; else rejects with NOT_REPLICATED. */
export type Confirm = (client: Redis) => Promise<void>

/** `count` is told of each WAIT. */
export function createReplication(replicas: number, timeoutMs: number, count: () => void): Confirm {
  const underWay = new Map<Redis, Promise<number>>()

  function wait(client: Redis): Promise<number> {
    count()
    const waiting = client.wait(replicas, timeoutMs)
    underWay.set(client, waiting)
    const over = () => void underWay.delete(client)
    // The very first to hear of the end: whoever is answered after it needs a WAIT of its own.
    waiting.then(over, over)
    return waiting
  }

  return async (client) => {
    // Answers come in the order of the commands: a WAIT that is still under way was sent after the write that is
    // confirmed here, or this one's answer would be behind it.
    const confirmed = await (underWay.get(client) ?? wait(client))
    if (confirmed >= replicas) return
    throw new SluiceError('NOT_REPLICATED', {
      detail:
        `Redis has the job, and ${confirmed} of ${replicas} replicas confirmed it within ${timeoutMs} ms: ` +
        'a failover now may lose it. Repeat with the same ids: that is safe.',
      outcome: 'unknown',
      retryAfterS: 1,
    })
  }
}
