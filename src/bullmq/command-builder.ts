/**
 * What BullMQ's own worker would send for what happens to a job: its Job decides (retries, backoff, retention, parents) on
 * a backend that only notes (command-recorder.ts). Nothing is sent from here.
 */
import { Job, type JobJson, type RedisQueueBackend, Worker, type WorkerOptions } from 'bullmq'
import { LRUCache } from 'lru-cache'
import { SluiceError } from '../errors.ts'
import {
  type BullmqCommand,
  type CommandRecorder,
  createCommandRecorder,
  createRecordingBackend,
} from './command-recorder.ts'
import type { JobLease } from './job-lease.ts'
import { applyOutcome, type JobOutcome } from './job-outcome.ts'

export interface LeaseExtension {
  /** From now on. */
  leaseMs: number
  progress: unknown
  log: string | undefined
}

export interface TakeOptions {
  queue: string
  /** 1 to 100. */
  max: number
  leaseMs: number
  /** Shown by BullMQ as `processedBy`. */
  worker: string | undefined
  rateLimit: { max: number; duration: number } | undefined
}

export interface CommandBuilder {
  /** Runs until there is no job, `max` times at most. */
  take(options: TakeOptions, token: string): Promise<BullmqCommand>
  /**
   * `stacktrace`: of its earlier attempts, as stored. Rejects with INVALID_OPTION for a backoff that only native workers
   * know how to compute.
   */
  settle(held: JobLease, outcome: JobOutcome, stacktrace: string | undefined): Promise<BullmqCommand>
  /** The lock first; the rest is written only where that held. */
  extend(held: JobLease, extension: LeaseExtension): Promise<BullmqCommand[]>
  /** A line for the job's log, whoever holds it. */
  log(held: JobLease, line: string): Promise<BullmqCommand>
  recoverStalled(queue: string, opts: Partial<WorkerOptions>): Promise<BullmqCommand>
}

/** Queues whose BullMQ Worker is kept; it holds no connection. */
const MAX_WORKERS = 1_000

export function createCommandBuilder(prefix: string): CommandBuilder {
  // For BullMQ's Job, which wants to belong to something; nothing runs in it.
  const workers = new LRUCache<string, Worker>({ max: MAX_WORKERS })

  /** Of each queue those that are not in use: as many as there were at once. */
  const recorders = new LRUCache<string, CommandRecorder[]>({ max: MAX_WORKERS })

  async function record(
    queue: string,
    opts: Partial<WorkerOptions>,
    act: (backend: RedisQueueBackend) => Promise<unknown>,
  ): Promise<BullmqCommand[]> {
    const idle = recorders.get(queue) ?? []
    const recorder = idle.pop() ?? createCommandRecorder(prefix, queue)
    try {
      return await recorder.record({ prefix, ...opts } as WorkerOptions, act)
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

  function jobOf(held: JobLease, backend: RedisQueueBackend, stacktrace: string | undefined): Job {
    const { key: id, attemptsMade, attemptsStarted } = held
    const opts = Job.optsFromJSON(held.opts)
    const json = { id, name: '', data: '{}', opts, timestamp: 1, attemptsMade, attemptsStarted, stacktrace }
    const job = Job.fromJSON(workerOf(held.queue), json as unknown as JobJson, held.key)
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
    async settle(held, outcome, stacktrace) {
      checkBackoff(held, outcome)
      return recordOne(held.queue, {}, (backend) =>
        applyOutcome(jobOf(held, backend, stacktrace), held.token, outcome),
      )
    },
    async extend({ queue, key, token, opts }, { leaseMs, progress, log }) {
      const commands = await record(queue, {}, async (backend) => {
        await backend.extendLock(key, token, leaseMs)
        if (progress !== undefined) await backend.updateProgress(key, progress as object)
        if (log !== undefined) await backend.addLog(key, log, Job.optsFromJSON(opts).keepLogs)
      })
      return commands.map((command, index) => ({ ...command, follows: index > 0 }))
    },
    log: ({ queue, key, opts }, line) =>
      recordOne(queue, {}, (backend) => backend.addLog(key, line, Job.optsFromJSON(opts).keepLogs)),
    recoverStalled: (queue, opts) => recordOne(queue, opts, (backend) => backend.moveStalledJobsToWait()),
  }
}

/** BullMQ throws for any other, which native workers bring a function for. */
const BACKOFFS = ['fixed', 'exponential']

function checkBackoff({ opts, attemptsMade }: JobLease, outcome: JobOutcome): void {
  if (outcome.outcome !== 'fail' || outcome.unrecoverable || outcome.retryAfterMs !== undefined) return
  const { attempts = 0, backoff } = Job.optsFromJSON(opts)
  if (typeof backoff !== 'object' || BACKOFFS.includes(backoff.type) || attemptsMade + 1 >= attempts) return
  throw new SluiceError('INVALID_OPTION', {
    detail: `The job's backoff "${backoff.type}" is known to native workers only. Settle it with "retry" and a delay.`,
    outcome: 'not_executed',
  })
}
