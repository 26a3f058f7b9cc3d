/**
 * Jobs in, outcomes out. Every job has its id before the first byte goes to Redis, so a command that is sent twice
 * makes no second job; and an outcome is told only after Redis has answered for this very job.
 *
 *   add → coalescer (one lane a queue) → one EVALSHA of enqueue.lua → what became of each job
 */
import type { JobsOptions } from 'bullmq'
import type { Config } from '../config.ts'
import { SluiceError } from '../errors.ts'
import type { Registry, State } from '../queues/registry.ts'
import { faultOf } from '../redis/faults.ts'
import type { Gateway, Operation } from '../redis/gateway.ts'
import { type EncodedOptions, encodeOptions } from '../redis/job-encoder.ts'
import { enqueueScript, runScript } from '../redis/scripts.ts'
import { type CoalescerStats, createCoalescer } from './coalescer.ts'
import { type Item, packItems } from './enqueue-message.ts'
import { uuidv7 } from './id.ts'

/** A job as a client asks for it, already valid. */
export interface NewJob {
  queue: string
  name: string
  data: unknown
  opts: JobsOptions
  /** A key that was made here (uuidv7) before the job was handed over, where the client has chosen none. */
  key?: string
}

/** For a job that was asked for without any. */
export const noOptions: Record<string, never> = Object.freeze({})

export interface Stored {
  queue: string
  /** BullMQ's id of the job that exists: another than asked for when it was deduplicated. */
  key: string
  /** `null` when the job that this one duplicates is gone already. */
  name: string | null
  state: State | null
  /** Milliseconds since 1970. */
  timestamp: number | null
  deduplicated: boolean
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
  item: Item
  bytes: number
}

type ScriptResult = 1 | [2, key: string, state?: State, name?: string, timestamp?: string] | [3, text: string]

export interface EnqueuerDeps {
  config: Config
  registry: Registry
  gateway: Gateway
  /** Called with the queue and key of each job that may be there now, before anyone is told of it. */
  onWrite(queue: string, key: string): void
  now?: () => number
}

/** A batch for more queues than this goes in parts, or it alone would fill the line for the semaphore. */
const QUEUES_AT_ONCE = 50

/** By the kind of the options. */
const STATES: State[] = ['waiting', 'delayed', 'prioritized']

const ENQUEUE: Operation = { label: 'enqueue', priority: 'enqueue', isWrite: true, commands: 1 }

export function createEnqueuer({
  config,
  registry,
  gateway,
  onWrite,
  now = Date.now,
}: EnqueuerDeps): Enqueuer {
  const coalescer = createCoalescer<Item, Stored>({
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

  function prepare(job: NewJob): Item {
    const timestamp = now()
    const chosen = job.opts.jobId !== undefined
    const key = job.opts.jobId ?? job.key ?? uuidv7(timestamp)
    const data = JSON.stringify(job.data)
    checkSize(job, data)
    return {
      key,
      chosen,
      name: job.name,
      timestamp,
      deduplicationId: job.opts.deduplication?.id,
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
  async function send(queueName: string, items: Item[]): Promise<(Stored | SluiceError)[]> {
    const base = registry.base(queueName)
    try {
      const results = (await gateway.onQueue(queueName, ENQUEUE, (client) =>
        runScript(client, enqueueScript, [`${base}meta`], [base, packItems(items)]),
      )) as ScriptResult[]
      registry.remember(queueName)
      return items.map((item, index) => outcome(queueName, item, results[index]!))
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

function checkSize(job: NewJob, data: string): void {
  const limit = job.opts.sizeLimit
  if (limit === undefined || Buffer.byteLength(data) <= limit) return
  throw new SluiceError('INVALID_OPTION', {
    errors: [{ pointer: '/data', detail: `is larger than opts.sizeLimit, ${limit} bytes` }],
    outcome: 'not_executed',
  })
}

function outcome(queue: string, item: Item, result: ScriptResult): Stored | SluiceError {
  const { key, name, timestamp, options } = item
  const state = STATES[options.kind - 1]!
  const created: Stored = { queue, key, name, state, timestamp, deduplicated: false }
  if (result === 1) return created
  if (result[0] === 3) return withId(jobError(result[1]), queue, key)
  const [, existingKey, existingState = null, existingName = null, existingTimestamp] = result
  return {
    queue,
    key: existingKey,
    name: existingName,
    state: existingState,
    timestamp: existingTimestamp === undefined ? null : Number(existingTimestamp),
    deduplicated: true,
  }
}

/** The script undoes what a failed job had written, so nothing of it is there. */
function jobError(text: string): SluiceError {
  const { code } = faultOf(text)
  return new SluiceError(code, {
    ...(code === 'QUEUE_DAMAGED' ? { detail: `Redis says: ${text.slice(0, 120)}` } : {}),
    outcome: 'not_executed',
    cause: new Error(text),
  })
}

function withId(error: SluiceError, queue: string, key: string): SluiceError {
  if (!(error instanceof SluiceError)) return error
  // One error may be shared by a whole batch; each job gets its own, with its own id.
  return new SluiceError(error.code, { ...error.details, ids: [`${queue}:${key}`] })
}
