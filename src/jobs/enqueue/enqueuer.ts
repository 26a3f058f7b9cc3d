/**
 * Jobs in, outcomes out. Every job has its id before the first byte goes to Redis, so a command that is sent twice
 * makes no second job; and an outcome is told only after Redis has answered for this very job.
 *
 *   add → coalescer (one lane a queue) → one EVALSHA of enqueue.lua → what became of each job
 */

import type { JobsOptions } from 'bullmq'
import { type EncodedOptions, encodeOptions } from '../../bullmq/job-encoder.ts'
import type { JobState } from '../../bullmq/job-states.ts'
import type { Config } from '../../config/schema.ts'
import { SluiceError } from '../../errors.ts'
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import type { Confirm } from '../../redis/gateway/replication.ts'
import type { Keyspace } from '../../redis/keyspace.ts'
import { classifyRedisError, fromRedisError } from '../../redis/redis-errors.ts'
import { type EnqueueItem, packEnqueueItems } from '../../redis/scripts/enqueue.ts'
import { enqueueScript, runScript } from '../../redis/scripts/run-script.ts'
import { uuidv7 } from '../job-id.ts'
import { type CoalescerStats, createCoalescer } from './coalescer.ts'
import { createIdempotency } from './idempotency.ts'
import { checkSize, checkTexts, type NewJob, noOptions } from './new-job.ts'

export interface Stored {
  queue: string
  /** BullMQ's id of the job that exists: another than asked for when it was deduplicated. */
  key: string
  /** `null` when the job that this one duplicates is gone already. */
  name: string | null
  state: JobState | null
  /** Milliseconds since 1970. */
  timestamp: number | null
  deduplicated: boolean
  /** An idempotency key led to it: this is what became of the first request with that key. */
  replayed: boolean
}

export interface Enqueuer {
  /** Rejects with a {@link SluiceError} that carries the job's id and, where it may have been stored, `outcome`. */
  add(job: NewJob): Promise<Stored>
  /** One promise a job. Each stands alone; those of one queue keep their order. */
  addMany(jobs: NewJob[]): Promise<Stored>[]
  stats(): CoalescerStats
  /** Sends what waits and waits for the answers. */
  close(): Promise<void>
}

/** An item of a call for many: its place in the call. */
interface Entry {
  index: number
  item: EnqueueItem
  bytes: number
}

/** As enqueue.lua has it. */
type ScriptResult =
  | 1
  | [2 | 4, key: string, state?: JobState, name?: string, timestamp?: string]
  | [3, text: string]
  | [5]

export interface EnqueuerDeps {
  config: Config
  keyspace: Keyspace
  registry: QueueRegistry
  gateway: RedisGateway
  /** Throws while Redis has no room for a job with so many bytes of data. */
  admit(bytes: number): void
  /** Resolves when what was written on this connection is as safe as it has to be. `undefined`: it is. */
  confirm: Confirm | undefined
  /** Called with the queue and key of each job that may be there now, before anyone is told of it. */
  onWrite(queue: string, key: string): void
  /** Called when jobs have been stored: workers that wait here need not wait for the news. */
  onStored(queue: string): void
  now?: () => number
}

/** A batch for more queues than this goes in parts, or it alone would fill the line for the semaphore. */
const QUEUES_AT_ONCE = 50

/** By the kind of the options. */
const STATES: JobState[] = ['waiting', 'delayed', 'prioritized']

const ENQUEUE: RedisOperation = { label: 'enqueue', priority: 'enqueue', isWrite: true, commands: 1 }

export function createEnqueuer({
  config,
  keyspace,
  registry,
  gateway,
  admit,
  confirm,
  onWrite,
  onStored,
  now = Date.now,
}: EnqueuerDeps): Enqueuer {
  const coalescer = createCoalescer<EnqueueItem, Stored>({
    batchMax: config.ENQUEUE_BATCH_MAX,
    batchSoon: config.ENQUEUE_BATCH_SOON,
    batchBytes: config.ENQUEUE_BATCH_BYTES,
    delayMs: config.ENQUEUE_BATCH_DELAY,
    inFlightMax: config.ENQUEUE_BATCHES_IN_FLIGHT,
    waitingMax: config.ENQUEUE_MAX_WAITING,
    waitingFor: 'jobs wait to be written to Redis (ENQUEUE_MAX_WAITING)',
    send,
  })
  // As BullMQ's Job constructor has it: attempts 0 unless said.
  const plain: JobsOptions = { attempts: 0, ...defaultOptions(config) }
  const plainEncoded = encodeOptions(plain)
  const idempotency = createIdempotency(keyspace)

  /** Of a client's idempotency key, if it came with one. */
  function recordOf({ idempotency: asked, queue, name, data, opts }: NewJob) {
    return asked && idempotency(asked.owner, asked.key, { queue, name, data, opts })
  }

  function prepare(job: NewJob): EnqueueItem {
    checkTexts(job)
    const timestamp = now()
    const chosen = job.opts.jobId !== undefined
    const key = job.opts.jobId ?? job.key ?? uuidv7(timestamp)
    const data = JSON.stringify(job.data)
    checkSize(job, data)
    admit(data.length)
    return {
      key,
      chosen,
      name: job.name,
      timestamp,
      deduplicationId: job.opts.deduplication?.id,
      idempotency: recordOf(job),
      data,
      options: job.opts === noOptions ? plainEncoded : encode(job.opts),
    }
  }

  function encode(own: JobsOptions): EncodedOptions {
    // A key of ours stands in no option, as with a job that BullMQ numbers itself.
    const opts = { ...plain, ...own }
    // … and a number of a backoff is a fixed one.
    if (typeof opts.backoff === 'number') opts.backoff = { type: 'fixed', delay: opts.backoff }
    return encodeOptions(opts)
  }

  /** One command; what became of each job, or why it is not known. */
  async function send(queueName: string, items: EnqueueItem[]): Promise<(Stored | SluiceError)[]> {
    const base = registry.base(queueName)
    const { packed, large } = packEnqueueItems(items)
    try {
      const { results, unconfirmed } = await gateway.onQueue(queueName, ENQUEUE, async (client) => {
        const args = [base, packed, config.IDEMPOTENCY_TTL, ...large]
        const results = (await runScript(client, enqueueScript, [`${base}meta`], args)) as ScriptResult[]
        const unconfirmed = await confirm?.(client).catch((error: unknown) => fromRedisError(error, true))
        return { results, unconfirmed: unconfirmed as SluiceError | undefined }
      })
      registry.remember(queueName)
      onStored(queueName)
      return items.map((item, index) => {
        const result = outcome(queueName, item, results[index]!)
        if (!unconfirmed || result instanceof SluiceError) return result
        return withId(unconfirmed, queueName, result.key)
      })
    } catch (error) {
      return items.map((item) => withId(error as SluiceError, queueName, item.key))
    } finally {
      // Also when the answer was lost: the jobs may be there. Of a key made here nobody can have asked before.
      for (const item of items) if (item.chosen) onWrite(queueName, item.key)
    }
  }

  return {
    async add(job) {
      const item = prepare(job)
      try {
        return coalescer.add(job.queue, item, item.data.length)
      } catch (error) {
        throw withId(error as SluiceError, job.queue, item.key)
      }
    },
    addMany(jobs) {
      const results: Promise<Stored>[] = new Array(jobs.length)
      const byQueue = new Map<string, Entry[]>()
      jobs.forEach((job, index) => {
        try {
          const item = prepare(job)
          const entry = { index, item, bytes: item.data.length }
          const entries = byQueue.get(job.queue)
          if (entries) entries.push(entry)
          else byQueue.set(job.queue, [entry])
        } catch (error) {
          results[index] = Promise.reject(error)
        }
      })
      const groups = [...byQueue]
      let earlier: Promise<unknown> | undefined
      for (let from = 0; from < groups.length; from += QUEUES_AT_ONCE) {
        const chunk = groups.slice(from, from + QUEUES_AT_ONCE)
        for (const [queue, entries] of chunk) sendGroup(queue, entries, earlier, results)
        earlier = Promise.allSettled(
          chunk.flatMap(([, entries]) => entries.map(({ index }) => results[index])),
        )
      }
      return results
    },
    stats: coalescer.stats,
    close: coalescer.close,
  }

  /** Fills in the result of each entry; nothing is sent before `earlier` has settled. */
  function sendGroup(
    queue: string,
    entries: Entry[],
    earlier: Promise<unknown> | undefined,
    results: Promise<Stored>[],
  ): void {
    const sent = earlier?.then(() => coalescer.addMany(queue, entries)) ?? coalescer.addMany(queue, entries)
    entries.forEach(({ index, item }, at) => {
      const result = Array.isArray(sent) ? sent[at]! : sent.then((added) => added[at]!)
      results[index] = result.catch((error) => {
        throw withId(error as SluiceError, queue, item.key)
      })
    })
  }
}

/** Without retention a queue grows until Redis is full; BullMQ's own default keeps everything for ever. */
function defaultOptions(config: Config): JobsOptions {
  const { DEFAULT_KEEP_COMPLETED_AGE: completed, DEFAULT_KEEP_FAILED_AGE: failed } = config
  return {
    ...(completed > 0 ? { removeOnComplete: { age: completed } } : {}),
    ...(failed > 0 ? { removeOnFail: { age: failed } } : {}),
  }
}

function outcome(queue: string, item: EnqueueItem, result: ScriptResult): Stored | SluiceError {
  const { key, name, timestamp, options } = item
  const state = STATES[options.kind - 1]!
  const created: Stored = { queue, key, name, state, timestamp, deduplicated: false, replayed: false }
  if (result === 1) return created
  if (result[0] === 3) return withId(jobError(result[1]), queue, key)
  if (result[0] === 5) return new SluiceError('IDEMPOTENCY_KEY_REUSED', { outcome: 'not_executed' })
  const [how, existingKey, existingState = null, existingName = null, existingTimestamp] = result
  return {
    queue,
    key: existingKey,
    name: existingName,
    state: existingState,
    timestamp: existingTimestamp === undefined ? null : Number(existingTimestamp),
    deduplicated: true,
    replayed: how === 4,
  }
}

/** The script undoes what a failed job had written, so nothing of it is there. */
function jobError(text: string): SluiceError {
  const { code } = classifyRedisError(text)
  return new SluiceError(code, {
    ...(code === 'QUEUE_DAMAGED' ? { detail: `Redis says: ${text.slice(0, 120)}` } : {}),
    outcome: 'not_executed',
    cause: new Error(text),
  })
}

function withId(error: SluiceError, queue: string, key: string): SluiceError {
  // Of a key that belongs to another payload nothing was written, under no id.
  if (!(error instanceof SluiceError) || error.code === 'IDEMPOTENCY_KEY_REUSED') return error
  // One error may be shared by a whole batch; each job gets its own, with its own id.
  return new SluiceError(error.code, { ...error.details, ids: [`${queue}:${key}`] })
}
