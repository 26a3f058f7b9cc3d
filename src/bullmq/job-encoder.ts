/**
 * Encodes a job's options as BullMQ's add scripts expect them. The encoding comes from BullMQ itself, whose backend writes
 * to a client that only records. It does not depend on the queue, and most jobs share their options with others.
 */
import { type JobJson, type JobsOptions, QueueKeys, RedisQueueBackend } from 'bullmq'
import { LRUCache } from 'lru-cache'

/** BullMQ's scripts that add a job. The job's options decide which one is used. */
export const addScripts = ['addStandardJob', 'addDelayedJob', 'addPrioritizedJob'] as const

export interface EncodedOptions {
  /** Position in {@link addScripts}, from 1. */
  kind: number
  /** The options as msgpack, under BullMQ's short names. */
  packed: Buffer
}

/** Clients choose their options, so the cache is bounded. */
const CACHED_MAX = 1_000

/** A cache of pure results, so the whole process can share it. */
const cache = new LRUCache<string, EncodedOptions>({ max: CACHED_MAX })

/** `opts` as BullMQ's Job has them: with defaults filled in and `backoff` as an object. */
export function encodeOptions(opts: JobsOptions): EncodedOptions {
  // No other job has these options.
  if (opts.jobId !== undefined || opts.deduplication !== undefined) return encode(opts)
  const text = JSON.stringify(opts)
  let encoded = cache.get(text)
  if (!encoded) {
    encoded = encode(opts)
    cache.set(text, encoded)
  }
  return encoded
}

/** The names of the keys that an add script takes, in its order and without the base of the queue. */
export function addKeyNames(script: (typeof addScripts)[number]): string[] {
  const [opts] = [{}, { delay: 1 }, { priority: 1 }].slice(addScripts.indexOf(script))
  return record(opts!).keys.map((key) => key.slice(BASE.length))
}

function encode(opts: JobsOptions): EncodedOptions {
  const { script, packed } = record(opts)
  return { kind: addScripts.indexOf(script) + 1, packed }
}

const PREFIX = 'p'
const NAME = 'q'
const BASE = `${PREFIX}:${NAME}:`
const queueKeys = new QueueKeys(PREFIX)
type Constructor = ConstructorParameters<typeof RedisQueueBackend>
const backend = new RedisQueueBackend(
  // Not used: addJobToTransaction sends to the client that it receives.
  undefined as unknown as Constructor[0],
  NAME,
  queueKeys.getKeys(NAME),
  (type) => queueKeys.toKey(NAME, type),
  {} as Constructor[4],
  undefined,
  false,
)

interface Recorded {
  script: (typeof addScripts)[number]
  keys: string[]
  packed: Buffer
}

function record(opts: JobsOptions): Recorded {
  let recorded: Recorded | undefined
  const recorder = {
    runCommand(versioned: string, list: (string | Buffer)[]) {
      recorded = {
        script: versioned.slice(0, versioned.indexOf(':')) as Recorded['script'],
        keys: list.slice(0, -3) as string[],
        packed: list.at(-1) as Buffer,
      }
    },
  } as unknown as Parameters<RedisQueueBackend['addJobToTransaction']>[0]
  const job = { id: 'id', name: 'name', data: '{}', opts, timestamp: 0 }
  // BullMQ calls the recorder synchronously, so the promise needs no await.
  void backend.addJobToTransaction(recorder, job as JobJson, job.id, {})
  return recorded!
}
