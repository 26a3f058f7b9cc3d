/**
 * Takes jobs, settles them and keeps them, with BullMQ's own logic (bullmq-worker.ts) and one command of Redis however many
 * jobs of a queue it is about. The lock of a job is BullMQ's, so native workers may work the same queue.
 */
import { randomBytes } from 'node:crypto'
import { type JobJson, raw2NextJobData } from 'bullmq'
import { SluiceError } from '../errors.ts'
import { jsonText } from '../queues/json-text.ts'
import type { ScheduleNext } from '../queues/scheduler.ts'
import {
  type BullmqCommand,
  type CommandReply,
  runCommands,
  type ShareCheck,
} from '../redis/bullmq-commands.ts'
import { toSluiceError } from '../redis/faults.ts'
import type { Gateway, Operation } from '../redis/gateway.ts'
import { createBullmqWorker, type Extension } from './bullmq-worker.ts'
import { type Held, readOptions, type Share, type Taken, type TakenJob, type TakeRequest } from './held.ts'
import type { Outcome } from './job-outcome.ts'

export interface Settlement {
  held: Held
  outcome: Outcome
  /** For the job's log, before it is settled. */
  log?: string
}

export interface Settled {
  /** Of each what it came to: `undefined` when it is done, else why nothing was changed. */
  refused: (SluiceError | undefined)[]
  taken: Taken
}

export interface Work {
  /** One command; more when a scheduler's job is among them, or one that must not be worked. Rejects with a SluiceError. */
  take(request: TakeRequest): Promise<Taken>
  /**
   * Settles jobs of one queue, in order, and takes more in the same command. Two commands when one of them has failed
   * before, since its earlier stack traces are kept. `share`: where the jobs count no longer.
   */
  settle(queue: string, items: Settlement[], next?: TakeRequest, share?: Share): Promise<Settled>
  extend(queue: string, items: { held: Held; extension: Extension }[]): Promise<(SluiceError | undefined)[]>
}

export interface WorkDeps {
  prefix: string
  gateway: Gateway
  scheduleNext: ScheduleNext
}

export const NOTHING: Taken = {
  ...{ jobs: [], limitedMs: 0, nextAtMs: 0 },
  ...{ isBounded: false, isShareFull: false, isShareChanged: false },
}
/** Takes that brought only jobs which must not be worked are followed by so many others. */
const MOST_ROUNDS = 10

const TAKE: Operation = { label: 'takeLeases', priority: 'settle', isWrite: true, commands: 1 }
const SETTLE: Operation = { label: 'settleLeases', priority: 'settle', isWrite: true, commands: 1 }
const TRACES: Operation = { label: 'readStacktraces', priority: 'settle', isWrite: false, commands: 1 }
const EXTEND: Operation = { label: 'extendLeases', priority: 'settle', isWrite: true, commands: 1 }

export function createWork({ prefix, gateway, scheduleNext }: WorkDeps): Work {
  const bullmq = createBullmqWorker(prefix)

  const send = (queue: string, operation: Operation, commands: BullmqCommand[], share?: ShareCheck) =>
    gateway.onQueue(queue, operation, (client) => runCommands(client, commands, share))

  async function take(request: TakeRequest, round = 1): Promise<Taken> {
    const token = createToken()
    const command = await bullmq.take(request, token)
    const [runs] = await send(request.queue, TAKE, [command], checkOf(request.share, request.leaseMs, []))
    const taken = await receive(request.queue, token, runs!)
    return taken.isOver || round === MOST_ROUNDS ? taken : take(request, round + 1)
  }

  async function receive(queue: string, token: string, runs: CommandReply[]) {
    const { doomed, scheduled, ...taken } = readTaken(queue, token, runs)
    for (const { json, held } of scheduled) {
      if (await scheduleNext(queue, json, held.key)) continue
      doomed.push({ held, outcome: { outcome: 'release' } })
    }
    // It stalled once too often, or a child failed: nobody is to work it, and nobody but its holder can say so. Where that
    // cannot be said now, its lock runs out, and whoever takes it then says it.
    if (doomed.length > 0) await settle(queue, doomed).catch(() => {})
    const unfit = new Set(doomed.map(({ held }) => held.key))
    const jobs = taken.jobs.filter(({ key }) => !unfit.has(key))
    return { ...taken, jobs, isOver: jobs.length > 0 || doomed.length === 0 }
  }

  async function settle(
    queue: string,
    items: Settlement[],
    next?: TakeRequest,
    share?: Share,
  ): Promise<Settled> {
    const traces = await readTraces(queue, items)
    const commands: BullmqCommand[] = []
    /** Of each item: where its command stands, or why it has none. */
    const places: (number | SluiceError)[] = []
    for (const index of inOrder(items)) {
      const { held, outcome, log } = items[index]!
      try {
        if (log !== undefined) commands.push(await bullmq.log(held, log))
        places[index] = commands.push(await bullmq.settle(held, outcome, traces.get(held.key))) - 1
      } catch (error) {
        places[index] = toSluice(error)
      }
    }
    const token = createToken()
    if (next) commands.push(await bullmq.take(next, token))
    const freed = items.map(({ held }) => held.key)
    const replies = await send(queue, SETTLE, commands, checkOf(share, next?.leaseMs ?? 0, freed))
    const refused = places.map((place) =>
      typeof place === 'number' ? faultOfReply(replies[place]![0]!) : place,
    )
    // What was settled is settled, whatever became of the rest.
    const taken = next && (await receive(queue, token, replies.at(-1)!).catch(() => undefined))
    return { refused, taken: taken ?? NOTHING }
  }

  /** BullMQ adds a trace to those of earlier attempts; a job that never failed has none. */
  async function readTraces(queue: string, items: Settlement[]): Promise<Map<string, string | undefined>> {
    const failed = items.filter(({ held, outcome }) => outcome.outcome === 'fail' && held.attemptsMade > 0)
    if (failed.length === 0) return new Map()
    const operation = { ...TRACES, commands: failed.length }
    const read = await gateway.onQueue(queue, operation, (client) =>
      Promise.all(failed.map(({ held }) => client.hget(`${prefix}:${queue}:${held.key}`, 'stacktrace'))),
    )
    return new Map(failed.map(({ held }, index) => [held.key, read[index] ?? undefined]))
  }

  return {
    take: (request) => take(request),
    settle,
    async extend(queue, items) {
      const starts: number[] = []
      const commands: BullmqCommand[] = []
      for (const { held, extension } of items) {
        starts.push(commands.length)
        commands.push(...(await bullmq.extend(held, extension)))
      }
      const replies = await send(queue, EXTEND, commands)
      return starts.map((start) => {
        const locked = replies[start]![0]!
        return 'reply' in locked && locked.reply === 0 ? new SluiceError('LEASE_LOST') : faultOfReply(locked)
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
function checkOf(share: Share | undefined, leaseMs: number, freed: string[]): ShareCheck | undefined {
  if (!share) return undefined
  const nowMs = Date.now()
  const { key, owner, limit, revision } = share
  return { key, owner, limit, revision, nowMs, untilMs: nowMs + leaseMs, freed }
}

interface Read extends Taken {
  /** Jobs of a scheduler: whoever takes one makes the next. */
  scheduled: { json: JobJson; held: Held }[]
  /** Jobs that nobody may work any more, and how they end. */
  doomed: Settlement[]
}

function readTaken(queue: string, token: string, runs: CommandReply[]): Read {
  const read: Read = { ...NOTHING, jobs: [], scheduled: [], doomed: [], isShareFull: runs.length === 0 }
  for (const run of runs) {
    if ('error' in run) {
      if (run.error === 'SHARE_CHANGED') read.isShareChanged = true
      // Jobs that came before it are held all the same.
      else if (read.jobs.length === 0) throw toSluiceError(new Error(run.error), true)
      continue
    }
    const [json, key, limitedMs, nextAtMs] = raw2NextJobData(run.reply as unknown[]) as [
      JobJson | null,
      string,
      number,
      number,
    ]
    if (!json) {
      read.limitedMs = Math.max(0, Number(limitedMs) || 0)
      read.nextAtMs = Math.max(0, Number(nextAtMs) || 0)
      read.isBounded = run.isBounded
      continue
    }
    const job = toTaken(queue, String(key), token, run.reply as [string[]], json)
    read.jobs.push(job)
    const { deferredFailure } = json
    if (json.repeatJobKey) read.scheduled.push({ json, held: job })
    if (deferredFailure) {
      const outcome: Outcome = { outcome: 'fail', error: { message: deferredFailure }, unrecoverable: true }
      read.doomed.push({ held: job, outcome })
    }
  }
  return read
}

function toTaken(queue: string, key: string, token: string, [fields]: [string[]], json: JobJson): TakenJob {
  const optsAt = fields.indexOf('opts')
  const { settling, attempts, traceparent } = readOptions(optsAt < 0 ? '{}' : fields[optsAt + 1]!)
  const { name, data, attemptsMade, attemptsStarted = 1, timestamp, processedOn = Date.now() } = json
  return {
    ...{ queue, key, token, opts: settling, attemptsMade, attemptsStarted },
    ...{ name, data: jsonText(data), traceparent, attempts, createdAtMs: timestamp, takenAtMs: processedOn },
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

function toSluice(error: unknown): SluiceError {
  return error instanceof SluiceError ? error : new SluiceError('INTERNAL', { cause: error })
}

function createToken(): string {
  return randomBytes(16).toString('base64url')
}
