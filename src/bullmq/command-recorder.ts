/**
 * Records the commands that BullMQ would send to Redis. BullMQ's own classes get a backend whose client stores each command
 * instead of sending it; run-bullmq-commands.lua then runs any number of them in one round trip.
 */
import { QueueKeys, RedisQueueBackend } from 'bullmq'
import { bullmqScript } from './script-source.ts'

type Argument = string | number | Buffer | undefined

export interface BullmqCommand {
  script: string
  /** The keys, then the arguments, as BullMQ passes them to the script. */
  list: Argument[]
  /** How often to run it, at most 100. The first run that returns no job is the last. */
  times: number
  /** Run it only if the last command without this flag returned 1, as extendLock does on success. */
  follows: boolean
}

type BackendOptions = ConstructorParameters<typeof RedisQueueBackend>[4]

export interface RecordingBackendOptions {
  prefix: string
  queue: string
  opts: BackendOptions
}

/** A BullMQ backend that passes its commands to `onCommand` and sends nothing. */
export function createRecordingBackend(
  { prefix, queue, opts }: RecordingBackendOptions,
  onCommand: (command: BullmqCommand) => void,
): RedisQueueBackend {
  const recorder = {
    async runCommand(versioned: string, list: Argument[]) {
      onCommand({ script: versioned.slice(0, versioned.indexOf(':')), list, times: 1, follows: false })
      // The code by which BullMQ's scripts report success.
      return 0
    },
  }
  const connection = { client: Promise.resolve(recorder) } as unknown
  const queueKeys = new QueueKeys(prefix)
  const toKey = (type: string) => queueKeys.toKey(queue, type)
  type Connection = ConstructorParameters<typeof RedisQueueBackend>[0]
  const keys = queueKeys.getKeys(queue)
  return new RedisQueueBackend(connection as Connection, queue, keys, toKey, opts, undefined, false)
}

/** Records one action at a time. */
export interface CommandRecorder {
  /** Calls `act` with a recording backend. Resolves with the commands that BullMQ would have sent. */
  record(
    opts: BackendOptions,
    act: (backend: RedisQueueBackend) => Promise<unknown>,
  ): Promise<BullmqCommand[]>
}

/**
 * Reuse a recorder: each BullMQ backend defines accessors of its own, which V8 keeps, with everything they reach, until the
 * next full garbage collection.
 */
export function createCommandRecorder(prefix: string, queue: string): CommandRecorder {
  let commands: BullmqCommand[] = []
  const push = (command: BullmqCommand) => commands.push(command)
  const backend = createRecordingBackend({ prefix, queue, opts: {} as BackendOptions }, push)
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

/** Position of the current time among the arguments of BullMQ's scripts (redis-queue-backend.js). */
const TIME_ARGUMENTS: Readonly<Record<string, number>> = {
  moveToActive: 1,
  moveToFinished: 1,
  moveToDelayed: 1,
  retryJob: 1,
  moveStalledJobsToWait: 2,
}

/** Position of the JSON text that BullMQ would make of a value, among the arguments of its scripts (redis-queue-backend.js). */
const VALUE_ARGUMENTS: Readonly<Record<string, number>> = { moveToFinished: 3, updateProgress: 1 }

/** Replaces the JSON text of a result or a progress. BullMQ makes it with JSON.stringify, which has no numbers but doubles. */
export function setValue({ script, list }: BullmqCommand, json: Buffer): void {
  list[bullmqScript(script).keys + VALUE_ARGUMENTS[script]!] = json
}

/** Replaces the machine's time, which BullMQ passes to its scripts. */
export function setTime(commands: BullmqCommand[], nowMs: number): void {
  for (const { script, list } of commands) {
    const position = TIME_ARGUMENTS[script]
    if (position !== undefined) list[bullmqScript(script).keys + position] = nowMs
  }
}
