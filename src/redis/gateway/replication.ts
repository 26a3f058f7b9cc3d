/**
 * DURABILITY_REPLICAS: a job is acknowledged once that many replicas of Redis have it. WAIT covers every
 * write sent before it on its connection, so one WAIT confirms all batches whose replies have arrived
 * meanwhile (group commit).
 */
import type { Redis } from 'ioredis'
import { SluiceError } from '../../errors.ts'

/** Resolves once enough replicas have the writes of this connection; otherwise rejects with NOT_REPLICATED. */
export type Confirm = (client: Redis) => Promise<void>

/** `onWait` is called for each WAIT sent. */
export function createReplication(replicas: number, timeoutMs: number, onWait: () => void): Confirm {
  const waits = new Map<Redis, Promise<number>>()

  function wait(client: Redis): Promise<number> {
    onWait()
    const confirmed = client.wait(replicas, timeoutMs)
    waits.set(client, confirmed)
    const remove = () => void waits.delete(client)
    // Registered first, so it runs before any other reaction: a write whose reply arrives later needs its own WAIT.
    confirmed.then(remove, remove)
    return confirmed
  }

  return async (client) => {
    // Redis replies in order. A WAIT without a reply was therefore sent after the write confirmed here, whose
    // reply has arrived.
    const confirmed = await (waits.get(client) ?? wait(client))
    if (confirmed >= replicas) return
    throw new SluiceError('NOT_REPLICATED', {
      detail:
        `Redis has the job, but only ${confirmed} of ${replicas} replicas confirmed it within ${timeoutMs} ms. ` +
        'A failover now may lose it. Repeat it with the same `ids`, which cannot create a second job.',
      outcome: 'unknown',
      retryAfterS: 1,
    })
  }
}
