/**
 * Reads jobs from Redis. Reads of one queue that arrive together are one command (read-jobs.lua), whose cost does not
 * grow with the backlog; those of several queues are still one write to the socket.
 */
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import { type JobRecordWithLogs, type JobRequest, readJobs } from '../../redis/scripts/read-jobs.ts'
import { createCoalescer } from '../enqueue/coalescer.ts'
import type { JobRef } from '../job-id.ts'
import { type JobResource, resourceFromRecord } from './job-resource.ts'

export interface Include {
  data: boolean
  logs: boolean
}

export interface Reading {
  /** `undefined`: the job does not exist. */
  job: JobResource | undefined
  /** Position in the queue's event stream: `job` reflects every event up to it and no later one. */
  position: string
}

export interface JobReader {
  /** Rejects with a SluiceError when Redis fails or when too many reads wait (OVERLOADED). */
  read(ref: JobRef, include: Include): Promise<Reading>
  /** Resolves when every read has settled. */
  close(): Promise<void>
}

/** One command of this many jobs blocks Redis for about 3 ms. */
const BATCH_MAX = 200
const IN_FLIGHT_MAX = 4
const WAITING_MAX = 50_000
/** Bounds the estimated size of one reply, so that no command returns hundreds of large jobs: with data, 16. */
const BATCH_BYTES = 1_048_576
const BYTES_WITH_DATA = 65_536
const BYTES_PLAIN = 1_024

const READ: RedisOperation = { label: 'jobView', priority: 'read', isWrite: false, commands: 1 }

interface Item extends JobRequest {
  ref: JobRef
}

export function createJobReader(registry: QueueRegistry, gateway: RedisGateway): JobReader {
  const coalescer = createCoalescer<Item, Reading>({
    batchMax: BATCH_MAX,
    batchSoon: BATCH_MAX,
    batchBytes: BATCH_BYTES,
    delayMs: 0,
    inFlightMax: IN_FLIGHT_MAX,
    waitingMax: WAITING_MAX,
    waitingFor: 'reads wait for Redis',
    send,
  })

  async function send(queue: string, items: Item[]): Promise<Reading[]> {
    const { position, jobs } = await gateway.onQueue(queue, READ, (client) =>
      readJobs(client, registry.base(queue), items),
    )
    if (jobs.some((job) => job !== undefined)) registry.remember(queue)
    return items.map(({ ref }, index) => ({ job: toResource(ref, jobs[index]), position }))
  }

  async function read(ref: JobRef, include: Include): Promise<Reading> {
    const { data: withData, logs: withLogs } = include
    const bytes = withData || withLogs ? BYTES_WITH_DATA : BYTES_PLAIN
    return coalescer.add(ref.queue, { ref, key: ref.key, withData, withLogs }, bytes)
  }

  return { read, close: coalescer.close }
}

function toResource(ref: JobRef, job: JobRecordWithLogs | undefined): JobResource | undefined {
  if (!job) return undefined
  const resource = resourceFromRecord(ref, job)
  if (job.logs !== undefined) resource.logs = job.logs
  return resource
}
