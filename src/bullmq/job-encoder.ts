/**
 * How BullMQ puts a job to its add scripts, learnt from BullMQ itself: its backend is handed a client that only notes what
 * it is told to send. Nothing of this depends on the queue, and little on the job: most jobs have the options of another.
 */
import { type JobJson, type JobsOptions, QueueKeys, RedisQueueBackend } from 'bullmq'
import { LRUCache } from 'lru-cache'

/** BullMQ's scripts that add a job, each the one for its kind of options. */
export const addScripts = ['addStandardJob', 'addDelayedJob', 'addPrioritizedJob'] as const

export interface EncodedOptions {
  /** Which of {@link addScripts}, from 1 on. */
  kind: number
  /** msgpack, under BullMQ's short names. */
  packed: Buffer
}

/** Callers choose their options: past this many different ones the oldest are encoded anew. */
const MAX_REMEMBERED = 1_000

const remembered = new LRUCache<string, EncodedOptions>({ max: MAX_REMEMBERED })

/** `opts` as BullMQ's Job has them: defaults filled in, a backoff as an object. */
export function encodeOptions(opts: JobsOptions): EncodedOptions {
  // Such options are no other job's.
  if (opts.jobId !== undefined || opts.deduplication !== undefined) return encode(opts)
  const text = JSON.stringify(opts)
  let encoded = remembered.get(text)
  if (!encoded) {
    encoded = encode(opts)
    remembered.set(text, encoded)
  }
  return encoded
}

/** The names of the keys that an add script takes, in its order: what comes after the base of the queue. */
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
  // Never asked: what is to be sent goes to the client that it is given.
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
  // Everything up to the recorder happens synchronously; what the promise brings is the recorder's nothing.
  void backend.addJobToTransaction(recorder, job as JobJson, job.id, {})
  return recorded!
}
