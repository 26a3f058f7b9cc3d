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
import {
  extendErrorOf,
  parseTakeReply,
  rejectUnsettleable,
  settleErrorOf,
  type TakeReply,
} from './take-reply.ts'

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

  const send = (
    queue: string,
    operation: RedisOperation,
    commands: BullmqCommand[],
    check?: ConcurrencyCheck,
  ) =>
    gateway.onQueue(queue, operation, (client) =>
      runBullmqCommands(client, commands, { takeBytesMax: Math.floor(answerBytesMax * JOBS_SHARE), check }),
    )

  async function take(request: TakeRequest, round = 1): Promise<TakeResult> {
    const { queue, concurrencyLimit, leaseMs } = request
    const token = createToken()
    const command = await bullmq.take(toTakeOptions(request), token)
    const [runs] = await send(queue, TAKE, [command], toCheck(clock.nowMs(), concurrencyLimit, leaseMs, []))
    const reply = parseTakeReply(queue, token, runs!, json)
    await selectWorkable(request, reply)
    return reply.mayHaveMore && round < ROUNDS_MAX ? take(request, round + 1) : reply
  }

  /** Creates the next jobs of schedulers, and settles the jobs that must not be worked: the others stay in the reply. */
  async function selectWorkable(
    { queue, concurrencyLimit, whyUnsettleable }: TakeRequest,
    reply: TakeReply,
  ): Promise<void> {
    const { scheduled, rejected, malformed } = reply
    if (whyUnsettleable) rejectUnsettleable(reply, whyUnsettleable)
    malformedJobs.note(queue, malformed)
    for (const { schedulerId, fields, lease } of scheduled) {
      if (await scheduleNext(queue, schedulerId, fields, lease.key)) continue
      if (rejected.every((other) => other.lease.key !== lease.key))
        rejected.push({ lease, outcome: { outcome: 'release' } })
    }
    if (rejected.length > 0) {
      // Only the lock holder can fail a job. If that fails now, the lock expires and the next process to take the job does it.
      await settle(queue, rejected, undefined, concurrencyLimit).catch(() => {})
      const rejectedKeys = new Set(rejected.map(({ lease }) => lease.key))
      reply.jobs = reply.jobs.filter(({ key }) => !rejectedKeys.has(key))
    }
    const isReleased = ({ outcome }: TakeReply['rejected'][number]) => outcome.outcome === 'release'
    reply.mayHaveMore = reply.jobs.length === 0 && (malformed.length > 0 || !rejected.every(isReleased))
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

  return { take: (request) => take(request), settle, extend, malformedCount: malformedJobs.count }
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
