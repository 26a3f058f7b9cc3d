/**
 * What BullMQ would send to Redis for a worker, sent by us: its own classes are handed a backend whose client only notes
 * what it is told, and any number of such commands are one EVALSHA of run-bullmq-commands.lua. So BullMQ decides (retries,
 * backoff, retention, parents), and a batch is one round trip.
 */
import { QueueKeys, RedisQueueBackend } from 'bullmq'

type Argument = string | number | Buffer | undefined

export interface BullmqCommand {
  script: string
  /** Keys, then arguments, as BullMQ gives them to the script. */
  list: Argument[]
  /** How often it is run, at most 100; it ends with the first run that brings no job. */
  times: number
  /** It belongs to the last command that does not follow, and is run only if that gave 1, as extendLock does. */
  follows: boolean
}

type BackendOptions = ConstructorParameters<typeof RedisQueueBackend>[4]

export interface RecordingBackendOptions {
  prefix: string
  queue: string
  opts: BackendOptions
}

/** A backend of BullMQ whose commands go to `note`, and nowhere else. */
export function createRecordingBackend(
  { prefix, queue, opts }: RecordingBackendOptions,
  note: (command: BullmqCommand) => void,
): RedisQueueBackend {
  const recorder = {
    async runCommand(versioned: string, list: Argument[]) {
      note({ script: versioned.slice(0, versioned.indexOf(':')), list, times: 1, follows: false })
      // As a script says that all went well.
      return 0
    },
  }
  const connection = { client: Promise.resolve(recorder) } as unknown
  const { all, toKey } = keysOf(prefix, queue)
  type Connection = ConstructorParameters<typeof RedisQueueBackend>[0]
  return new RedisQueueBackend(connection as Connection, queue, all, toKey, opts, undefined, false)
}

/** One thing at a time. */
export interface CommandRecorder {
  /** Lets BullMQ do something on a backend that sends nothing; resolves with what it would have sent. */
  record(
    opts: BackendOptions,
    act: (backend: RedisQueueBackend) => Promise<unknown>,
  ): Promise<BullmqCommand[]>
}

/**
 * To be used again and again: a backend has accessors of its own, which V8 keeps, with all that they can reach, until the
 * next full collection.
 */
export function createCommandRecorder(prefix: string, queue: string): CommandRecorder {
  let commands: BullmqCommand[] = []
  const note = (command: BullmqCommand) => commands.push(command)
  const backend = createRecordingBackend({ prefix, queue, opts: {} as BackendOptions }, note)
  const inner = backend as unknown as { queue: { opts: BackendOptions } }
  return {
    async record(opts, act) {
      commands = []
      inner.queue.opts = opts
      await act(backend)
      return commands
    },
  }
}

let lastKeys:
  | { prefix: string; queue: string; all: Record<string, string>; toKey(type: string): string }
  | undefined

/** Of the queue that was asked for last: a batch is of one. */
function keysOf(prefix: string, queue: string) {
  if (lastKeys?.prefix !== prefix || lastKeys.queue !== queue) {
    const queueKeys = new QueueKeys(prefix)
    const toKey = (type: string) => queueKeys.toKey(queue, type)
    lastKeys = { prefix, queue, all: queueKeys.getKeys(queue), toKey }
  }
  return lastKeys
}
