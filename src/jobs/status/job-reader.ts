/**
 * Reads jobs from Redis. Reads of one queue that arrive together are one command (read-jobs.lua), whose cost does not
 * grow with the backlog; those of several queues are still one write to the socket.
 *
 *   read ─ small reply, with the reads of the same tick ─ fits → job
 *                                                       └ does not fit → large reply, a few at once in all queues → job
 *
 * So a reply is small (REPLY_BYTES) unless a job is large, and large replies are bounded in number by the byte budget.
 */

import type { PacedTurns } from '../../paced-turns.ts'
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { ByteBudget } from '../../redis/gateway/byte-budget.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import { type JobRecordWithLogs, type JobRequest, readJobs } from '../../redis/scripts/read-jobs.ts'
import { createCoalescer } from '../enqueue/coalescer.ts'
import type { JobRef } from '../job-id.ts'
import { bytesOfValues } from './answer-size.ts'
import type { JobResource } from './job-resource.ts'
import { resourceFromRecord } from './stored-job.ts'

export interface Include {
  data: boolean
  logs: boolean
}

export interface Reading {
  /** `undefined`: the job does not exist. */
  job: JobResource | undefined
  /** Position in the queue's event stream: `job` reflects every event up to it and no later one. */
  position: string
  /** Fields were left out because the allowance of the request was used up, not because the job is too large. */
  isCut?: boolean
}

/** The bytes that a request may still read. */
export interface Allowance {
  leftBytes: number
}

export interface JobReader {
  /** Rejects with a SluiceError when Redis fails or when too many reads wait (OVERLOADED). */
  read(ref: JobRef, include: Include): Promise<Reading>
  /** Like `read`, in a small reply only. `undefined`: the job does not fit into it. */
  readSmall(ref: JobRef, include: Include): Promise<Reading | undefined>
  /**
   * Reads jobs of one queue, in order. Those that the allowance does not suffice for are read in their brief form. The
   * caller holds the bytes of the allowance in the byte budget.
   */
  readMany(queue: string, refs: JobRef[], include: Include, allowance: Allowance): Promise<Reading[]>
  stats(): JobReaderStats
  /** Resolves when every read has settled. */
  close(): Promise<void>
}

export interface JobReaderStats {
  /** Jobs that did not fit into a small reply. */
  large: number
  /** Jobs read with fields left out. */
  omitted: number
}

export interface JobReaderDeps {
  registry: QueueRegistry
  gateway: RedisGateway
  byteBudget: ByteBudget
  turns: Pick<PacedTurns, 'perBytes'>
  /** MAX_ANSWER_BYTES. */
  maxBytes: number
}

/** One command of this many jobs blocks Redis for about 3 ms. */
const BATCH_MAX = 200
const IN_FLIGHT_MAX = 4
const WAITING_MAX = 50_000
/** Most bytes of a small reply. The semaphore bounds the number of replies. */
const REPLY_BYTES = 262_144
/** Estimates, so that few jobs of a batch have to be read again. */
const BYTES_WITH_DATA = 16_384
const BYTES_PLAIN = 1_024

const READ: RedisOperation = { label: 'jobView', priority: 'read', isWrite: false, commands: 1 }

const shared = {
  batchMax: BATCH_MAX,
  batchSoon: BATCH_MAX,
  batchBytes: REPLY_BYTES,
  delayMs: 0,
  waitingMax: WAITING_MAX,
  waitingFor: 'reads wait for Redis',
}

interface Item extends JobRequest {
  ref: JobRef
  isSmall: boolean
}

type Outcome = Reading | undefined

export function createJobReader(deps: JobReaderDeps): JobReader {
  const { registry, gateway, byteBudget, turns, maxBytes } = deps
  const counts: JobReaderStats = { large: 0, omitted: 0 }
  const smallReads = createCoalescer<Item, Outcome>({
    ...shared,
    inFlightMax: IN_FLIGHT_MAX,
    send: sendSmall,
  })
  const largeReads = createCoalescer<Item, Outcome>({ ...shared, inFlightMax: 1, send: sendLarge })

  /** `unread`: the job did not fit into the reply. `isLarge`: the first is read in any case, on the connection for slow commands. */
  async function readBatch(
    queue: string,
    items: (JobRequest & { ref: JobRef })[],
    limitBytes: number,
    isLarge: boolean,
  ): Promise<(Reading | 'unread')[]> {
    const send = (client: Parameters<typeof readJobs>[0]) =>
      readJobs(client, registry.base(queue), items, { maxBytes: limitBytes, mustReadFirst: isLarge })
    const reply = isLarge ? gateway.onAdmin(READ, send) : gateway.onQueue(queue, READ, send)
    const { position, jobs } = await reply
    if (jobs.some((job) => job !== undefined)) registry.remember(queue)
    const render = (stored: JobRecordWithLogs | undefined | 'unread', index: number) =>
      stored === 'unread' ? stored : { job: toResource(items[index]!.ref, stored), position }
    return isLarge ? renderInTurns(jobs, render, turns) : jobs.map(render)
  }

  function toResource(ref: JobRef, stored: JobRecordWithLogs | undefined): JobResource | undefined {
    if (!stored) return undefined
    const job = resourceFromRecord(ref, stored, maxBytes, registry.jobIdOf)
    if (job.omitted) counts.omitted++
    return job
  }

  async function sendSmall(queue: string, items: Item[]) {
    const readings = await readBatch(queue, items, Math.min(REPLY_BYTES, maxBytes), false)
    return readings.map((reading, index) => {
      if (reading !== 'unread') return reading
      counts.large++
      const item = items[index]!
      return item.isSmall ? undefined : readLarge(queue, item)
    })
  }

  function sendLarge(queue: string, items: Item[]) {
    return byteBudget.hold(maxBytes, async () => {
      const readings = await readBatch(queue, items, maxBytes, true)
      // The first one has been read, so the others get their turn.
      return readings.map((reading, index) =>
        reading === 'unread' ? readLarge(queue, items[index]!) : reading,
      )
    })
  }

  function readLarge(queue: string, item: Item): Promise<Outcome> | Error {
    try {
      return largeReads.add(queue, item, 0)
    } catch (error) {
      return error as Error
    }
  }

  async function add(ref: JobRef, { data, logs }: Include, isSmall: boolean): Promise<Outcome> {
    const item = { ref, key: ref.key, withData: data, withLogs: logs, isSmall }
    return smallReads.add(ref.queue, item, data || logs ? BYTES_WITH_DATA : BYTES_PLAIN)
  }

  async function readMany(queue: string, refs: JobRef[], { data, logs }: Include, allowance: Allowance) {
    const readings: Reading[] = []
    for (let isBrief = allowance.leftBytes <= 0; readings.length < refs.length; isBrief = true) {
      const items = refs
        .slice(readings.length)
        .map((ref) => ({ ref, key: ref.key, withData: data, withLogs: logs, isBrief }))
      const limitBytes = isBrief ? maxBytes : allowance.leftBytes
      const batch = await readBatch(queue, items, limitBytes, true)
      const end = batch.indexOf('unread')
      for (const reading of (end < 0 ? batch : batch.slice(0, end)) as Reading[]) {
        const { job } = reading
        if (job) allowance.leftBytes -= bytesOfValues(job)
        reading.isCut = job?.omitted !== undefined && (isBrief || limitBytes < maxBytes)
        readings.push(reading)
      }
    }
    return readings
  }

  return {
    read: async (ref, include) => (await add(ref, include, false))!,
    readSmall: (ref, include) => add(ref, include, true),
    readMany,
    stats: () => counts,
    async close() {
      await smallReads.close()
      await largeReads.close()
    },
  }
}

/** Checking a MiB for JSON takes some ms. */
async function renderInTurns<Stored>(
  jobs: Stored[],
  render: (stored: Stored, index: number) => Reading | 'unread',
  turns: JobReaderDeps['turns'],
): Promise<(Reading | 'unread')[]> {
  const readings: (Reading | 'unread')[] = []
  const pace = turns.perBytes()
  for (const [index, stored] of jobs.entries()) {
    const reading = render(stored, index)
    readings.push(reading)
    if (reading !== 'unread' && reading.job) await pace(bytesOfValues(reading.job))
  }
  return readings
}
