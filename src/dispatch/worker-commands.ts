/**
 * Takes, settles and extends jobs with BullMQ's own logic (command-builder.ts), in one Redis command for any number of jobs
 * of a queue. A lease is BullMQ's lock, so native workers may work the same queue.
 */
import { randomBytes } from 'node:crypto'
import type { Logger } from 'pino'
import {
  type CommandBuilder,
  createCommandBuilder,
  type LeaseExtension,
  type TakeOptions,
} from '../bullmq/command-builder.ts'
import type { BullmqCommand } from '../bullmq/command-recorder.ts'
import type { JobLease } from '../bullmq/job-lease.ts'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import { asSluiceError, type SluiceError } from '../errors.ts'
import { createStoredJson } from '../json/stored-json.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import type { RedisClock } from '../redis/redis-clock.ts'
import { type ConcurrencyCheck, runBullmqCommands } from '../redis/scripts/run-bullmq-commands.ts'
import type { ConcurrencyLimit, TakeRequest, TakeResult } from './leased-job.ts'
import { createMalformedJobs } from './malformed-jobs.ts'
import type { ScheduleNext } from './scheduler-iteration.ts'
import { createSchedulerNotices, type SchedulerTrouble } from './scheduler-notices.ts'
import { createSkippedJobs } from './skipped-jobs.ts'
import { extendErrorOf, parseTakeReply, settleErrorOf } from './take-reply.ts'
import { createWorkableJobs } from './workable-jobs.ts'

export interface Settlement {
  lease: JobLease
  outcome: JobOutcome
  /** A line for the job's log, written before the job is settled. */
  log?: string
}

export interface SettleResult {
  /** One entry per item, in order: `undefined` if it was settled, else why nothing was changed. */
  refused: (SluiceError | undefined)[]
  /** `undefined` if nothing was to be taken, or if the take failed. */
  taken: TakeResult | undefined
}

export interface Extension {
  lease: JobLease
  extension: LeaseExtension
}

export interface WorkerCommands {
  /** Sends one command; more if it took a scheduler's job or a job that must not be worked. Rejects with a SluiceError. */
  take(request: TakeRequest): Promise<TakeResult>
  /**
   * Settles jobs of one queue, in order, and takes `next` in the same command. A job that has failed before costs one more
   * command, which reads its earlier stack traces. `limit`: the concurrency limit that the jobs no longer count against.
   * Rejects with a SluiceError if the command failed.
   */
  settle(
    queue: string,
    items: Settlement[],
    next?: TakeRequest,
    limit?: ConcurrencyLimit,
  ): Promise<SettleResult>
  /** Extends leases of one queue with one command. Resolves with one entry per item, as `SettleResult.refused`. */
  extend(queue: string, items: Extension[]): Promise<(SluiceError | undefined)[]>
  /** Jobs since the start that could not be worked. Each was failed or, if its key is not a hash, taken out of its queue. */
  malformedCount(): number
  /** Schedulers that this service does not continue. */
  schedulerTroubles(): SchedulerTrouble[]
}

export interface WorkerCommandsDeps {
  keyspace: Keyspace
  gateway: RedisGateway
  scheduleNext: ScheduleNext
  clock: Pick<RedisClock, 'nowMs'>
  /** Most bytes of an answer. */
  answerBytesMax: number
  log: Pick<Logger, 'warn'>
}

/** The part of an answer that the jobs of a take may fill. Lease tokens, and escapes in data that are not JSON, need the rest. */
const JOBS_SHARE = 0.5

/** How often a take is repeated while it returns only jobs that must not be worked. */
const ROUNDS_MAX = 10

const TAKE: RedisOperation = { label: 'takeLeases', priority: 'enqueue', isWrite: true, commands: 1 }
const SETTLE: RedisOperation = { label: 'settleLeases', priority: 'settle', isWrite: true, commands: 1 }
const TRACES: RedisOperation = { label: 'readStacktraces', priority: 'settle', isWrite: false, commands: 1 }
const EXTEND: RedisOperation = { label: 'extendLeases', priority: 'settle', isWrite: true, commands: 1 }

export function createWorkerCommands({
  keyspace,
  gateway,
  scheduleNext,
  clock,
  answerBytesMax,
  log,
}: WorkerCommandsDeps): WorkerCommands {
  const bullmq = createCommandBuilder(keyspace.prefix, clock.nowMs)
  const json = createStoredJson()
  const malformedJobs = createMalformedJobs(log)
  const notices = createSchedulerNotices(log)
  const skipped = createSkippedJobs()
  const selectWorkable = createWorkableJobs({
    scheduleNext,
    malformedJobs,
    notices,
    skipped,
    settle: ({ queue, concurrencyLimit }, rejected) => settle(queue, rejected, undefined, concurrencyLimit),
    nowMs: clock.nowMs,
  })
  const takeBytesMax = Math.floor(answerBytesMax * JOBS_SHARE)

  const send = (
    queue: string,
    operation: RedisOperation,
    commands: BullmqCommand[],
    check?: ConcurrencyCheck,
    skippedKeys: readonly string[] = [],
  ) =>
    gateway.onQueue(queue, operation, (client) =>
      runBullmqCommands(client, commands, { takeBytesMax, check, skipped: skippedKeys }),
    )

  async function take(request: TakeRequest, round = 1): Promise<TakeResult> {
    const { queue, concurrencyLimit, leaseMs } = request
    const token = createToken()
    const command = await bullmq.take(toTakeOptions(request), token)
    const check = toCheck(clock.nowMs(), concurrencyLimit, leaseMs, [])
    const [runs] = await send(queue, TAKE, [command], check, skipped.keys(queue))
    const reply = parseTakeReply(queue, token, runs!, json)
    await selectWorkable(request, reply)
    return reply.mayHaveMore && round < ROUNDS_MAX ? take(request, round + 1) : reply
  }

  async function settle(
    queue: string,
    items: Settlement[],
    next?: TakeRequest,
    limit?: ConcurrencyLimit,
  ): Promise<SettleResult> {
    const traces = await readTraces({ gateway, keyspace }, queue, items)
    const { commands, commandIndexes } = await recordSettlements(bullmq, items, traces)
    const token = createToken()
    if (next) commands.push(await bullmq.take(toTakeOptions(next), token))
    const freed = items.map(({ lease }) => lease.key)
    const replies = await send(
      queue,
      SETTLE,
      commands,
      toCheck(clock.nowMs(), limit, next?.leaseMs ?? 0, freed),
      next && skipped.keys(queue),
    )
    const refused = commandIndexes.map((at) =>
      typeof at === 'number' ? settleErrorOf(replies[at]![0]!) : at,
    )
    if (!next) return { refused, taken: undefined }
    try {
      const reply = parseTakeReply(queue, token, replies.at(-1)!, json)
      await selectWorkable(next, reply)
      return { refused, taken: reply }
    } catch {
      // The jobs are settled, so a failed take is no reason to reject.
      return { refused, taken: undefined }
    }
  }

  async function extend(queue: string, items: Extension[]): Promise<(SluiceError | undefined)[]> {
    const commands: BullmqCommand[] = []
    /** For each item: where its commands begin and end. */
    const ranges: [number, number][] = []
    for (const { lease, extension } of items) {
      const own = await bullmq.extend(lease, extension)
      ranges.push([commands.length, commands.push(...own)])
    }
    const replies = await send(queue, EXTEND, commands)
    return ranges.map(([from, to]) => extendErrorOf(replies.slice(from, to).map(([run]) => run)))
  }

  const schedulerTroubles = (): SchedulerTrouble[] => [
    ...skipped.stuck().map((job) => ({ ...job, kind: 'stuck' as const })),
    ...notices.ended(),
  ]
  const malformedCount = malformedJobs.count
  return { take: (request) => take(request), settle, extend, malformedCount, schedulerTroubles }
}

async function recordSettlements(
  bullmq: CommandBuilder,
  items: Settlement[],
  traces: ReadonlyMap<string, string | undefined>,
) {
  const commands: BullmqCommand[] = []
  /** For each item: the index of its command, or why it has none. */
  const commandIndexes: (number | SluiceError)[] = []
  for (const index of settleOrder(items)) {
    const { lease, outcome, log } = items[index]!
    try {
      if (log !== undefined) commands.push(await bullmq.log(lease, log))
      commandIndexes[index] = commands.push(await bullmq.settle(lease, outcome, traces.get(lease.key))) - 1
    } catch (error) {
      commandIndexes[index] = asSluiceError(error)
    }
  }
  return { commands, commandIndexes }
}

/** BullMQ appends a trace to those of earlier attempts, which only a job that has failed before has. */
async function readTraces(
  { gateway, keyspace }: Pick<WorkerCommandsDeps, 'gateway' | 'keyspace'>,
  queue: string,
  items: Settlement[],
): Promise<Map<string, string | undefined>> {
  const keys = items.flatMap(({ lease, outcome }) =>
    outcome.outcome === 'fail' && lease.attemptsMade > 0 ? [lease.key] : [],
  )
  if (keys.length === 0) return new Map()
  const operation = { ...TRACES, commands: keys.length }
  const traces = await gateway.onQueue(queue, operation, (client) =>
    Promise.all(
      keys.map((key) => client.hget(keyspace.job(queue, key), 'stacktrace').catch(ignoreWrongType)),
    ),
  )
  return new Map(keys.map((key, index) => [key, traces[index] ?? undefined]))
}

/** A job whose key is not a hash is refused alone when it is settled. */
function ignoreWrongType(error: Error): undefined {
  if (!error.message.startsWith('WRONGTYPE')) throw error
}

/** Indexes in the order to settle in. A released job goes to the front of the queue, so the first one is released last. */
function settleOrder(items: Settlement[]): number[] {
  const released = [...items.keys()].filter((index) => items[index]!.outcome.outcome === 'release')
  const others = [...items.keys()].filter((index) => items[index]!.outcome.outcome !== 'release')
  return [...others, ...released.reverse()]
}

/** `freed`: keys of the jobs that no longer count against the limit. */
function toCheck(
  nowMs: number,
  limit: ConcurrencyLimit | undefined,
  leaseMs: number,
  freed: string[],
): ConcurrencyCheck | undefined {
  if (!limit) return undefined
  return {
    key: limit.key,
    owner: limit.owner,
    revision: limit.revision,
    limit: limit.limit,
    nowMs,
    untilMs: nowMs + leaseMs,
    freed,
  }
}

function toTakeOptions({ queue, max, leaseMs, worker, concurrencyLimit }: TakeRequest): TakeOptions {
  return { queue, max, leaseMs, worker, rateLimit: concurrencyLimit?.rateLimit }
}

function createToken(): string {
  return randomBytes(16).toString('base64url')
}
