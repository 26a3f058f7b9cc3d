/**
 * What a worker does to jobs, with BullMQ's own logic and one command of Redis however many jobs it is about: take them,
 * settle them, keep them. BullMQ's Job decides what becomes of a job (retries, backoff, retention, parents); what it would
 * send is recorded and sent together (redis/bullmq-commands.ts). The lock of a job is BullMQ's, so native workers may
 * work the same queue.
 */
import { randomBytes } from 'node:crypto'
import {
  Job,
  type JobJson,
  type RedisQueueBackend,
  raw2NextJobData,
  Worker,
  type WorkerOptions,
} from 'bullmq'
import { LRUCache } from 'lru-cache'
import { SluiceError } from '../errors.ts'
import {
  type BullmqCommand,
  type CommandReply,
  createRecordingBackend,
  recordCommands,
  runCommands,
} from '../redis/bullmq-commands.ts'
import { toSluiceError } from '../redis/faults.ts'
import type { Gateway, Operation } from '../redis/gateway.ts'
import { actOn, type Outcome } from './job-outcome.ts'

export interface TakeRequest {
  queue: string
  /** 1 to 100. */
  max: number
  leaseMs: number
  /** Shown by BullMQ as `processedBy`. */
  worker: string | undefined
}

/** What is known of a job that is held; all that it takes to settle it. */
export interface Held {
  queue: string
  key: string
  /** The value of BullMQ's lock. */
  token: string
  /** As the job's hash has them: BullMQ's short names, JSON text. */
  opts: string
  attemptsMade: number
  attemptsStarted: number
}

export interface TakenJob extends Held {
  name: string
  /** JSON text. */
  data: string
  /** The lock runs from then on, ms since 1970. */
  takenAtMs: number
}

export interface Taken {
  jobs: TakenJob[]
  /** The queue's rate limit is reached for so long, ms; else 0. */
  limitedMs: number
  /** When the next delayed job is due, ms since 1970; 0: there is none. */
  nextAtMs: number
}

export interface Extension {
  /** From now on. */
  leaseMs: number
  progress: unknown
  log: string | undefined
}

export interface Work {
  /** One command, two when a scheduler's job is among them. Rejects with a SluiceError. */
  take(request: TakeRequest): Promise<Taken>
  /**
   * Settles jobs of one queue, in order, and takes more in the same command. Of each what it came to: `undefined` when it
   * is done, else why not. Two commands when one of them has failed, since its earlier stack traces are kept.
   */
  settle(
    queue: string,
    items: { held: Held; outcome: Outcome }[],
    next: TakeRequest | undefined,
  ): Promise<{ refused: (SluiceError | undefined)[]; taken: Taken }>
  extend(queue: string, items: { held: Held; extension: Extension }[]): Promise<(SluiceError | undefined)[]>
  /** Jobs whose holder let the lock run out go back to wait; BullMQ lets only one replica do it at a time. */
  recoverStalled(queue: string): Promise<void>
}

const NOTHING: Taken = { jobs: [], limitedMs: 0, nextAtMs: 0 }
/** Of several replicas one looks in this time. */
const STALLED_INTERVAL_MS = 1_900
/** As native workers have it: a job that stalls twice fails. */
const MAX_STALLED = 1
/** Its place among the keys of moveStalledJobsToWait. */
const STALLED_CHECK_KEY = 3
/** Queues whose BullMQ Worker is kept; it holds no connection. */
const MAX_WORKERS = 1_000

const TAKE: Operation = { label: 'takeLeases', priority: 'settle', isWrite: true, commands: 1 }
const SETTLE: Operation = { label: 'settleLeases', priority: 'settle', isWrite: true, commands: 1 }
const TRACES: Operation = { label: 'readStacktraces', priority: 'settle', isWrite: false, commands: 1 }
const EXTEND: Operation = { label: 'extendLeases', priority: 'settle', isWrite: true, commands: 1 }
const STALLED: Operation = { label: 'recoverStalled', priority: 'list', isWrite: true, commands: 1 }

export function createWork(prefix: string, gateway: Gateway): Work {
  // For BullMQ's Job, which wants to belong to something; nothing runs in it, and it has no connection.
  const workers = new LRUCache<string, Worker>({ max: MAX_WORKERS })

  const record = (
    queue: string,
    opts: Partial<WorkerOptions>,
    act: (backend: RedisQueueBackend) => Promise<unknown>,
  ) => recordCommands({ prefix, queue, opts: { prefix, ...opts } as WorkerOptions }, act)

  function workerOf(queue: string): Worker {
    let worker = workers.get(queue)
    if (!worker) {
      const opts = { connection: {}, prefix, autorun: false }
      const backend = createRecordingBackend({ prefix, queue, opts }, () => {})
      worker = new Worker(queue, null, opts, () => backend)
      worker.on('error', () => {})
      workers.set(queue, worker)
    }
    return worker
  }

  /** BullMQ's Job of what is held, on a backend that records. */
  function jobOf(held: Held, backend: RedisQueueBackend, stacktrace: string | undefined): Job {
    const json = {
      ...{ id: held.key, name: '', data: '{}', opts: Job.optsFromJSON(held.opts), progress: 0, timestamp: 1 },
      ...{ attemptsMade: held.attemptsMade, attemptsStarted: held.attemptsStarted, stacktrace },
    }
    const job = Job.fromJSON(workerOf(held.queue), json as unknown as JobJson, held.key)
    ;(job as unknown as { backend: RedisQueueBackend }).backend = backend
    return job
  }

  async function takeCommand({ queue, max, leaseMs, worker }: TakeRequest, token: string) {
    const opts = { lockDuration: leaseMs, ...(worker === undefined ? {} : { name: worker }) }
    const [command] = await record(queue, opts, (backend) => backend.moveToActive(token, worker as string))
    return { ...command!, times: max }
  }

  async function readTaken(request: TakeRequest, token: string, runs: CommandReply[]): Promise<Taken> {
    const taken: Taken = { jobs: [], limitedMs: 0, nextAtMs: 0 }
    const doomed: { held: Held; outcome: Outcome }[] = []
    const schedulers: BullmqCommand[] = []
    for (const run of runs) {
      if ('error' in run) throw toSluiceError(new Error(run.error), true)
      const [json, key, limitedMs, nextAt] = raw2NextJobData(run.reply as unknown[]) as [
        JobJson | null,
        string,
        number,
        number,
      ]
      if (!json) {
        taken.limitedMs = Math.max(0, Number(limitedMs) || 0)
        taken.nextAtMs = Math.max(0, Number(nextAt) || 0)
        continue
      }
      const job = toTaken(request.queue, String(key), token, run.reply as [string[]], json)
      if (json.deferredFailure) {
        const error = { message: json.deferredFailure }
        doomed.push({ held: job, outcome: { outcome: 'fail', error, unrecoverable: true } })
      } else taken.jobs.push(job)
      if (json.repeatJobKey) schedulers.push(...(await nextOfScheduler(request.queue, json, job)))
    }
    if (schedulers.length > 0)
      await gateway.onQueue(request.queue, TAKE, (client) => runCommands(client, schedulers))
    // It stalled once too often, or a child failed: nobody is to work it, and nobody but its holder can say so.
    if (doomed.length > 0) await settle(request.queue, doomed, undefined)
    return taken
  }

  /** The next job of a scheduler is made by whoever takes the one before, as BullMQ's Worker does it. */
  function nextOfScheduler(queue: string, json: JobJson, { key, token }: Held): Promise<BullmqCommand[]> {
    return record(queue, {}, async (backend) => {
      const worker = new Worker(queue, null, { connection: {}, prefix, autorun: false }, () => backend)
      worker.on('error', () => {})
      // Not for the public, and the only way to a scheduler's next job.
      const { nextJobFromJobData } = worker as unknown as {
        nextJobFromJobData(...args: unknown[]): Promise<unknown>
      }
      await nextJobFromJobData.call(worker, json, key, token)
    })
  }

  async function settle(
    queue: string,
    items: { held: Held; outcome: Outcome }[],
    next: TakeRequest | undefined,
  ) {
    const traces = await readTraces(queue, items)
    const commands: BullmqCommand[] = []
    const refused: (SluiceError | undefined)[] = []
    for (const { held, outcome } of items) {
      const recorded = await record(queue, {}, (backend) =>
        actOn(jobOf(held, backend, traces.get(held.key)), held.token, outcome),
      )
      commands.push(recorded[0]!)
    }
    const token = createToken()
    if (next) commands.push(await takeCommand(next, token))
    const replies = await gateway.onQueue(queue, SETTLE, (client) => runCommands(client, commands))
    for (const [index] of items.entries()) refused.push(faultOfReply(replies[index]![0]!))
    const taken = next ? await readTaken(next, token, replies[items.length]!) : NOTHING
    return { refused, taken }
  }

  /** BullMQ adds a trace to those of earlier attempts; a job that never failed has none. */
  async function readTraces(queue: string, items: { held: Held; outcome: Outcome }[]) {
    const failed = items.filter(({ held, outcome }) => outcome.outcome === 'fail' && held.attemptsMade > 0)
    const traces = new Map<string, string | undefined>()
    if (failed.length === 0) return traces
    const operation = { ...TRACES, commands: failed.length }
    const read = await gateway.onQueue(queue, operation, (client) =>
      Promise.all(failed.map(({ held }) => client.hget(`${prefix}:${queue}:${held.key}`, 'stacktrace'))),
    )
    failed.forEach(({ held }, index) => void traces.set(held.key, read[index] ?? undefined))
    return traces
  }

  return {
    async take(request) {
      const token = createToken()
      const command = await takeCommand(request, token)
      const [runs] = await gateway.onQueue(request.queue, TAKE, (client) => runCommands(client, [command]))
      return readTaken(request, token, runs!)
    },
    settle,
    async extend(queue, items) {
      const commands: BullmqCommand[] = []
      const starts: number[] = []
      for (const { held, extension } of items) {
        starts.push(commands.length)
        const recorded = await record(queue, {}, (backend) => keep(backend, held, extension))
        // Nothing is written for a job that is not held any more.
        commands.push(...recorded.map((command, index) => ({ ...command, follows: index > 0 })))
      }
      const replies = await gateway.onQueue(queue, EXTEND, (client) => runCommands(client, commands))
      return starts.map((start) => {
        const locked = replies[start]![0]!
        if ('reply' in locked && locked.reply === 0) return new SluiceError('LEASE_LOST')
        return faultOfReply(locked)
      })
    },
    async recoverStalled(queue) {
      const opts = { maxStalledCount: MAX_STALLED, stalledInterval: STALLED_INTERVAL_MS }
      const commands = await record(queue, opts, (backend) => backend.moveStalledJobsToWait())
      // A clock of our own: that of native workers lets nobody look for half a minute.
      for (const { list } of commands) list[STALLED_CHECK_KEY] = `${prefix}::sluice:stalled-check:${queue}`
      await gateway.onQueue(queue, STALLED, (client) => runCommands(client, commands))
    },
  }
}

/** The lock first: whether the job is held decides whether the rest is written. */
async function keep(
  backend: RedisQueueBackend,
  { key, token, opts }: Held,
  extension: Extension,
): Promise<void> {
  const { leaseMs, progress, log } = extension
  await backend.extendLock(key, token, leaseMs)
  if (progress !== undefined) await backend.updateProgress(key, progress as object)
  if (log !== undefined) await backend.addLog(key, log, Job.optsFromJSON(opts).keepLogs)
}

function toTaken(queue: string, key: string, token: string, [fields]: [string[]], json: JobJson): TakenJob {
  const optsAt = fields.indexOf('opts')
  return {
    ...{ queue, key, token, name: json.name, data: json.data },
    opts: optsAt < 0 ? '{}' : fields[optsAt + 1]!,
    attemptsMade: json.attemptsMade,
    attemptsStarted: json.attemptsStarted ?? 1,
    takenAtMs: json.processedOn ?? Date.now(),
  }
}

/** BullMQ's codes (finished-errors.js). */
function faultOfReply(run: CommandReply): SluiceError | undefined {
  if ('error' in run) return toSluiceError(new Error(run.error), true)
  const code = Number(run.reply)
  if (!(code < 0)) return undefined
  if (code === -1) return new SluiceError('JOB_NOT_FOUND')
  if (code === -4 || code === -9)
    return new SluiceError('WRONG_STATE', {
      detail: 'The job has children that are not done, or have failed.',
    })
  return new SluiceError('LEASE_LOST')
}

function createToken(): string {
  return randomBytes(16).toString('base64url')
}
