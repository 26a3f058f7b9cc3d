/**
 * Stores jobs. A job has its id before anything is sent to Redis, so sending a command twice creates no second job; and an
 * outcome is reported only after Redis has replied for this very job.
 *
 *   add → prepare → coalescer (one lane per queue) → one EVALSHA of enqueue.lua → the outcome of each job
 */

import type { Config } from '../../config/schema.ts'
import type { SluiceError } from '../../errors.ts'
import { isNewQueueName } from '../../queues/queue-name.ts'
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import type { Confirm } from '../../redis/gateway/replication.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import type { RedisClock } from '../../redis/redis-clock.ts'
import { fromRedisError } from '../../redis/redis-errors.ts'
import { type EnqueueItem, enqueueJobs } from '../../redis/scripts/enqueue.ts'
import { createUuidv7 } from '../job-id.ts'
import { type CoalescerStats, createCoalescer } from './coalescer.ts'
import { type EnqueuedJob, toOutcome, withJobId } from './enqueue-outcome.ts'
import { createAssertExists } from './existing-queue.ts'
import type { NewJob } from './new-job.ts'
import { createPrepareJob } from './prepare-job.ts'
import { planWaves, type QueueGroup } from './queue-groups.ts'

export interface Enqueuer {
  /** A key for a job that a caller has to know before it is stored. */
  newKey(): string
  /** Rejects with a SluiceError that carries the job's id, and `outcome` where the job may have been stored. */
  add(job: NewJob): Promise<EnqueuedJob>
  /** One promise per job, each settled on its own. The jobs of one queue keep their order. */
  addMany(jobs: NewJob[]): Promise<EnqueuedJob>[]
  stats(): CoalescerStats
  /** Sends all waiting jobs, and resolves when every job has its outcome. */
  close(): Promise<void>
}

export interface EnqueuerDeps {
  config: Config
  keyspace: Keyspace
  registry: QueueRegistry
  gateway: RedisGateway
  /** Throws while Redis has no memory left for a job with so many bytes of data. */
  admit(bytes: number): void
  /** Resolves when enough replicas have the writes of a connection. `undefined`: the master alone is enough. */
  confirm: Confirm | undefined
  /** Called with the queue and key of each job that may exist now, before its caller learns of it. */
  onWrite(queue: string, key: string): void
  /** Called when jobs have been stored, so that local pending takes need not wait for the event. */
  onStored(queue: string): void
  clock: Pick<RedisClock, 'nowMs'>
}

/** A job of `addMany`: `index` is its position in the call. */
interface Entry {
  queue: string
  index: number
  item: EnqueueItem
  bytes: number
}

/** A call that names more queues is written in waves; at once it could fill the semaphore's queue by itself. */
const QUEUES_AT_ONCE = 50

const ENQUEUE: RedisOperation = { label: 'enqueue', priority: 'enqueue', isWrite: true, commands: 1 }

export function createEnqueuer(deps: EnqueuerDeps): Enqueuer {
  const { config, keyspace, registry, gateway, admit, confirm, onWrite, onStored, clock } = deps
  const uuidv7 = createUuidv7()
  const assertExists = createAssertExists(keyspace, gateway)
  const prepareJob = createPrepareJob({ config, admit, newKey: uuidv7, now: clock.nowMs })
  const coalescer = createCoalescer<EnqueueItem, EnqueuedJob>({
    batchMax: config.ENQUEUE_BATCH_MAX,
    batchSoon: config.ENQUEUE_BATCH_SOON,
    batchBytes: config.ENQUEUE_BATCH_BYTES,
    delayMs: config.ENQUEUE_BATCH_DELAY,
    inFlightMax: config.ENQUEUE_BATCHES_IN_FLIGHT,
    waitingMax: config.ENQUEUE_MAX_WAITING,
    waitingFor: 'jobs wait to be written to Redis (ENQUEUE_MAX_WAITING)',
    send,
  })

  /** One command for one queue. Never rejects. */
  async function send(queue: string, items: EnqueueItem[]): Promise<(EnqueuedJob | SluiceError)[]> {
    let unconfirmed: SluiceError | undefined
    try {
      const results = await gateway.onQueue(queue, ENQUEUE, async (client) => {
        const stored = await enqueueJobs(client, keyspace.queueBase(queue), items, config.IDEMPOTENCY_TTL)
        // Caught here: the gateway would treat a rejection as a failure of the write.
        if (confirm) unconfirmed = await confirm(client).then(noError, toUnconfirmed)
        return stored
      })
      registry.remember(queue)
      onStored(queue)
      return items.map((item, index) => toOutcome(queue, item, results[index]!, unconfirmed))
    } catch (error) {
      return items.map((item) => withJobId(error as SluiceError, queue, item.key))
    } finally {
      // Also after an error, since the jobs may exist. A generated key is new, so no cached status can have it.
      for (const item of items) if (item.isKeyChosen) onWrite(queue, item.key)
    }
  }

  async function add(job: NewJob): Promise<EnqueuedJob> {
    if (!isNewQueueName(job.queue)) await assertExists(job.queue)
    const item = prepareJob(job)
    try {
      return coalescer.add(job.queue, item, item.data.length)
    } catch (error) {
      throw withJobId(error, job.queue, item.key)
    }
  }

  function addMany(jobs: NewJob[]): Promise<EnqueuedJob>[] {
    const results: Promise<EnqueuedJob>[] = new Array(jobs.length)
    const entries: Entry[] = []
    jobs.forEach((job, index) => {
      try {
        const item = prepareJob(job)
        entries.push({ queue: job.queue, index, item, bytes: item.data.length })
      } catch (error) {
        results[index] = Promise.reject(error)
      }
    })
    let previous: Promise<unknown> | undefined
    for (const wave of planWaves(entries, QUEUES_AT_ONCE)) {
      for (const group of wave) addGroup(group, previous, results)
      previous = Promise.allSettled(wave.flatMap((group) => group.entries.map(({ index }) => results[index])))
    }
    return results
  }

  /** Fills in the result of each entry; sends nothing before `previous` has settled. */
  function addGroup(
    { queue, entries }: QueueGroup<Entry>,
    previous: Promise<unknown> | undefined,
    results: Promise<EnqueuedJob>[],
  ): void {
    const ready = isNewQueueName(queue) ? previous : Promise.resolve(previous).then(() => assertExists(queue))
    const added = ready?.then(() => coalescer.addMany(queue, entries)) ?? coalescer.addMany(queue, entries)
    entries.forEach(({ index, item }, at) => {
      const result = Array.isArray(added) ? added[at]! : added.then((later) => later[at]!)
      results[index] = result.catch((error) => {
        throw withJobId(error, queue, item.key)
      })
    })
  }

  return {
    newKey: () => uuidv7(clock.nowMs()),
    add,
    addMany,
    stats: coalescer.stats,
    close: coalescer.close,
  }
}

const noError = () => undefined

const toUnconfirmed = (error: unknown) => fromRedisError(error, true)
