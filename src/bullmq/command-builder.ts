/**
 * Builds the commands that BullMQ's own worker would send. BullMQ's Job decides (retries, backoff, retention, parents) and
 * writes to a backend that only records (command-recorder.ts). This module sends nothing.
 */
import { Job, type JobJson, QueueKeys, type RedisQueueBackend, Worker, type WorkerOptions } from 'bullmq'
import { LRUCache } from 'lru-cache'
import { SluiceError } from '../errors.ts'
import {
  type BullmqCommand,
  type CommandRecorder,
  createCommandRecorder,
  createRecordingBackend,
  setTime,
  setValue,
} from './command-recorder.ts'
import type { JobLease } from './job-lease.ts'
import { applyOutcome, type JobOutcome } from './job-outcome.ts'

export interface LeaseExtension {
  /** The new length of the lease, counted from now. */
  leaseMs: number
  /** Compact JSON text in UTF-8; `undefined` leaves the job's progress as it is. */
  progress: Buffer | undefined
  /** A line for the job's log. */
  log: string | undefined
}

export interface TakeOptions {
  queue: string
  /** Most jobs to take, 1 to 100. */
  max: number
  leaseMs: number
  /** BullMQ stores it as `processedBy`. */
  worker: string | undefined
  /** Most jobs per `duration` ms. BullMQ's global rate limit of the queue takes precedence. */
  rateLimit: { max: number; duration: number } | undefined
}

export interface StalledCheckOptions {
  /** How often a job may stall before it fails. */
  maxStalledCount: number
  /** Time during which only one process checks a queue, ms. */
  intervalMs: number
  /** The key that marks this time. */
  checkKey: string
}

export interface CommandBuilder {
  /** Takes jobs one by one until the queue has none, or `max` are taken. */
  take(options: TakeOptions, token: string): Promise<BullmqCommand>
  /**
   * `stacktrace`: the stored traces of earlier attempts. Rejects with INVALID_OPTION if only native workers can compute
   * the job's backoff.
   */
  settle(lease: JobLease, outcome: JobOutcome, stacktrace: string | undefined): Promise<BullmqCommand>
  /** The first command extends the lock. The others follow it, so they run only if it succeeded. */
  extend(lease: JobLease, extension: LeaseExtension): Promise<BullmqCommand[]>
  /** Adds a line to the job's log, also when the lease is lost. */
  log(lease: JobLease, line: string): Promise<BullmqCommand>
  recoverStalled(queue: string, options: StalledCheckOptions): Promise<BullmqCommand>
}

/** How many queues keep their BullMQ Worker and their recorders. Neither has a connection. */
const QUEUES_MAX = 1_000

/** `nowMs`: the time that the commands give to BullMQ's scripts, ms since 1970. */
export function createCommandBuilder(prefix: string, nowMs: () => number): CommandBuilder {
  const queueKeys = new QueueKeys(prefix)
  /** BullMQ's Job needs an owner. These workers never run. */
  const workers = new LRUCache<string, Worker>({ max: QUEUES_MAX })
  /** The idle recorders of each queue. */
  const recorders = new LRUCache<string, CommandRecorder[]>({ max: QUEUES_MAX })

  async function record(
    queue: string,
    opts: Partial<WorkerOptions>,
    act: (backend: RedisQueueBackend) => Promise<unknown>,
  ): Promise<BullmqCommand[]> {
    const idle = recorders.get(queue) ?? []
    const recorder = idle.pop() ?? createCommandRecorder(prefix, queue)
    try {
      const commands = await recorder.record({ prefix, ...opts } as WorkerOptions, act)
      setTime(commands, nowMs())
      return commands
    } finally {
      idle.push(recorder)
      recorders.set(queue, idle)
    }
  }

  async function recordOne(...args: Parameters<typeof record>): Promise<BullmqCommand> {
    const [command] = await record(...args)
    return command!
  }

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

  function jobOf(lease: JobLease, backend: RedisQueueBackend, stacktrace: string | undefined): Job {
    const { key: id, attemptsMade, attemptsStarted } = lease
    const opts = Job.optsFromJSON(lease.opts)
    const json = { id, name: '', data: '{}', opts, timestamp: 1, attemptsMade, attemptsStarted, stacktrace }
    const job = Job.fromJSON(workerOf(lease.queue), json as unknown as JobJson, id)
    ;(job as unknown as { backend: RedisQueueBackend }).backend = backend
    return job
  }

  return {
    async take({ queue, max, leaseMs, worker, rateLimit: limiter }, token) {
      const opts = {
        lockDuration: leaseMs,
        ...(worker === undefined ? {} : { name: worker }),
        ...(limiter === undefined ? {} : { limiter }),
      }
      const command = await recordOne(queue, opts, (backend) => backend.moveToActive(token, worker as string))
      command.times = max
      return command
    },
    async settle(lease, outcome, stacktrace) {
      assertComputableBackoff(lease, outcome)
      const command = await recordOne(lease.queue, {}, (backend) =>
        applyOutcome(jobOf(lease, backend, stacktrace), lease.token, outcome),
      )
      if (outcome.outcome === 'complete') setValue(command, outcome.result)
      return command
    },
    async extend({ queue, key, token, opts }, { leaseMs, progress, log }) {
      const commands = await record(queue, {}, async (backend) => {
        await backend.extendLock(key, token, leaseMs)
        if (progress !== undefined) await backend.updateProgress(key, 0)
        if (log !== undefined) await backend.addLog(key, log, Job.optsFromJSON(opts).keepLogs)
      })
      if (progress !== undefined) setValue(commands[1]!, progress)
      return commands.map((command, index) => ({ ...command, follows: index > 0 }))
    },
    log: ({ queue, key, opts }, line) =>
      recordOne(queue, {}, (backend) => backend.addLog(key, line, Job.optsFromJSON(opts).keepLogs)),
    async recoverStalled(queue, { maxStalledCount, intervalMs, checkKey }) {
      const opts = { maxStalledCount, stalledInterval: intervalMs }
      const command = await recordOne(queue, opts, (backend) => backend.moveStalledJobsToWait())
      command.list[command.list.indexOf(queueKeys.toKey(queue, 'stalled-check'))] = checkKey
      return command
    },
  }
}

/** For any other type, native workers supply a function and BullMQ throws here. */
const COMPUTABLE_BACKOFFS = ['fixed', 'exponential']

function assertComputableBackoff({ opts, attemptsMade }: JobLease, outcome: JobOutcome): void {
  if (outcome.outcome !== 'fail' || outcome.unrecoverable || outcome.retryAfterMs !== undefined) return
  const { attempts = 0, backoff } = Job.optsFromJSON(opts)
  if (
    typeof backoff !== 'object' ||
    COMPUTABLE_BACKOFFS.includes(backoff.type) ||
    attemptsMade + 1 >= attempts
  )
    return
  throw new SluiceError('INVALID_OPTION', {
    detail: `Only native workers can compute the backoff "${backoff.type}" of this job. Settle it with "fail" and a "delay".`,
    outcome: 'not_executed',
  })
}
