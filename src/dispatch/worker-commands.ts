/**
 * Takes jobs, settles them and keeps them, with BullMQ's own logic (bullmq-worker.ts) and one command of Redis however many
 * jobs of a queue it is about. The lock of a job is BullMQ's, so native workers may work the same queue.
 */

import { randomBytes } from 'node:crypto'
import { createCommandBuilder, type LeaseExtension, type TakeOptions } from '../bullmq/command-builder.ts'
import type { BullmqCommand } from '../bullmq/command-recorder.ts'
import type { JobLease } from '../bullmq/job-lease.ts'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import { asSluiceError, SluiceError } from '../errors.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import {
  type CommandReply,
  type ConcurrencyCheck,
  runBullmqCommands,
} from '../redis/scripts/run-bullmq-commands.ts'
import type { ConcurrencyLimit, TakeRequest, TakeResult } from './leased-job.ts'
import type { ScheduleNext } from './scheduler-iteration.ts'
import { EMPTY_TAKE, errorOfReply, parseTakeReply } from './take-reply.ts'

export interface Settlement {
  lease: JobLease
  outcome: JobOutcome
  /** For the job's log, before it is settled. */
  log?: string
}

export interface SettleResult {
  /** Of each what it came to: `undefined` when it is done, else why nothing was changed. */
  refused: (SluiceError | undefined)[]
  taken: TakeResult
}

export interface WorkerCommands {
  /** One command; more when a scheduler's job is among them, or one that must not be worked. Rejects with a SluiceError. */
  take(request: TakeRequest): Promise<TakeResult>
  /**
   * Settles jobs of one queue, in order, and takes more in the same command. Two commands when one of them has failed
   * before, since its earlier stack traces are kept. `share`: where the jobs count no longer.
   */
  settle(
    queue: string,
    items: Settlement[],
    next?: TakeRequest,
    share?: ConcurrencyLimit,
  ): Promise<SettleResult>
  extend(
    queue: string,
    items: { held: JobLease; extension: LeaseExtension }[],
  ): Promise<(SluiceError | undefined)[]>
}

export interface WorkerCommandsDeps {
  keyspace: Keyspace
  gateway: RedisGateway
  scheduleNext: ScheduleNext
}

/** Takes that brought only jobs which must not be worked are followed by so many others. */
const MOST_ROUNDS = 10

const TAKE: RedisOperation = { label: 'takeLeases', priority: 'enqueue', isWrite: true, commands: 1 }
const SETTLE: RedisOperation = { label: 'settleLeases', priority: 'settle', isWrite: true, commands: 1 }
const TRACES: RedisOperation = { label: 'readStacktraces', priority: 'settle', isWrite: false, commands: 1 }
const EXTEND: RedisOperation = { label: 'extendLeases', priority: 'settle', isWrite: true, commands: 1 }

export function createWorkerCommands({
  keyspace,
  gateway,
  scheduleNext,
}: WorkerCommandsDeps): WorkerCommands {
  const bullmq = createCommandBuilder(keyspace.prefix)

  const send = (
    queue: string,
    operation: RedisOperation,
    commands: BullmqCommand[],
    share?: ConcurrencyCheck,
  ) => gateway.onQueue(queue, operation, (client) => runBullmqCommands(client, commands, share))

  async function take(request: TakeRequest, round = 1): Promise<TakeResult> {
    const token = createToken()
    const command = await bullmq.take(optionsOf(request), token)
    const [runs] = await send(
      request.queue,
      TAKE,
      [command],
      checkOf(request.concurrencyLimit, request.leaseMs, []),
    )
    const taken = await receive(request, token, runs!)
    return taken.isOver || round === MOST_ROUNDS ? taken : take(request, round + 1)
  }

  async function receive(
    { queue, concurrencyLimit: share }: TakeRequest,
    token: string,
    runs: CommandReply[],
  ) {
    const { rejected, scheduled, ...taken } = parseTakeReply(queue, token, runs)
    for (const { json, lease } of scheduled) {
      if (await scheduleNext(queue, json, lease.key)) continue
      rejected.push({ lease, outcome: { outcome: 'release' } })
    }
    // It stalled once too often, or a child failed: nobody is to work it, and nobody but its holder can say so. Where that
    // cannot be said now, its lock runs out, and whoever takes it then says it.
    if (rejected.length > 0) await settle(queue, rejected, undefined, share).catch(() => {})
    const unfit = new Set(rejected.map(({ lease }) => lease.key))
    const jobs = taken.jobs.filter(({ key }) => !unfit.has(key))
    return { ...taken, jobs, isOver: jobs.length > 0 || rejected.length === 0 }
  }

  async function settle(
    queue: string,
    items: Settlement[],
    next?: TakeRequest,
    share?: ConcurrencyLimit,
  ): Promise<SettleResult> {
    const traces = await readTraces(queue, items)
    const commands: BullmqCommand[] = []
    /** Of each item: where its command stands, or why it has none. */
    const places: (number | SluiceError)[] = []
    for (const index of inOrder(items)) {
      const { lease: held, outcome, log } = items[index]!
      try {
        if (log !== undefined) commands.push(await bullmq.log(held, log))
        places[index] = commands.push(await bullmq.settle(held, outcome, traces.get(held.key))) - 1
      } catch (error) {
        places[index] = asSluiceError(error)
      }
    }
    const token = createToken()
    if (next) commands.push(await bullmq.take(optionsOf(next), token))
    const freed = items.map(({ lease: held }) => held.key)
    const replies = await send(queue, SETTLE, commands, checkOf(share, next?.leaseMs ?? 0, freed))
    const refused = places.map((place) =>
      typeof place === 'number' ? errorOfReply(replies[place]![0]!) : place,
    )
    // What was settled is settled, whatever became of the rest.
    const taken = next && (await receive(next, token, replies.at(-1)!).catch(() => undefined))
    return { refused, taken: taken ?? EMPTY_TAKE }
  }

  /** BullMQ adds a trace to those of earlier attempts; a job that never failed has none. */
  async function readTraces(queue: string, items: Settlement[]): Promise<Map<string, string | undefined>> {
    const failed = items.filter(
      ({ lease: held, outcome }) => outcome.outcome === 'fail' && held.attemptsMade > 0,
    )
    if (failed.length === 0) return new Map()
    const operation = { ...TRACES, commands: failed.length }
    const read = await gateway.onQueue(queue, operation, (client) =>
      Promise.all(failed.map(({ lease: held }) => client.hget(keyspace.job(queue, held.key), 'stacktrace'))),
    )
    return new Map(failed.map(({ lease: held }, index) => [held.key, read[index] ?? undefined]))
  }

  return {
    take: (request) => take(request),
    settle,
    async extend(queue, items) {
      const commands: BullmqCommand[] = []
      /** Of each item, where its commands stand: first that of the lock. */
      const places: [number, number][] = []
      for (const { held, extension } of items) {
        const own = await bullmq.extend(held, extension)
        places.push([commands.length, commands.push(...own)])
      }
      const replies = await send(queue, EXTEND, commands)
      return places.map(([from, to]) => {
        const [locked, ...others] = replies.slice(from, to).map(([run]) => run)
        if (locked && 'reply' in locked && locked.reply === 0) return new SluiceError('LEASE_LOST')
        return [locked, ...others].map((run) => run && errorOfReply(run)).find((fault) => fault !== undefined)
      })
    },
  }
}

/** Each job that goes back goes before all others, so the first comes last. */
function inOrder(items: Settlement[]): number[] {
  const released = [...items.keys()].filter((index) => items[index]!.outcome.outcome === 'release')
  const others = [...items.keys()].filter((index) => items[index]!.outcome.outcome !== 'release')
  return [...others, ...released.reverse()]
}

/** `freed`: jobs that it holds no more. */
function checkOf(
  share: ConcurrencyLimit | undefined,
  leaseMs: number,
  freed: string[],
): ConcurrencyCheck | undefined {
  if (!share) return undefined
  const nowMs = Date.now()
  const { key, owner, limit, revision } = share
  return { key, owner, limit, revision, nowMs, untilMs: nowMs + leaseMs, freed }
}

function optionsOf({ queue, max, leaseMs, worker, concurrencyLimit }: TakeRequest): TakeOptions {
  return { queue, max, leaseMs, worker, rateLimit: concurrencyLimit?.rateLimit }
}

function createToken(): string {
  return randomBytes(16).toString('base64url')
}
