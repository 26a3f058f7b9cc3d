/**
 * Jobs as they stand in Redis at one instant. Those of one queue that are asked for together are one command
 * (read-jobs.lua), whose cost does not grow with the backlog; those of many queues are still one write to the socket.
 */
import type { QueueRegistry } from '../../queues/queue-registry.ts'
import type { RedisGateway, RedisOperation } from '../../redis/gateway/redis-gateway.ts'
import { readJobsScript, runScript } from '../../redis/scripts/run-script.ts'
import { createCoalescer } from '../enqueue/coalescer.ts'
import type { JobRef } from '../job-id.ts'
import { FIELDS_AND_DATA, type JobReply, resourceFromReply } from './job-fields.ts'
import type { JobResource } from './job-resource.ts'

export interface Include {
  data: boolean
  logs: boolean
}

export interface Reading {
  /** `undefined`: there is no such job. */
  job: JobResource | undefined
  /** The place in the queue's event stream: what an event up to here tells is in `job`, what a later one tells is not. */
  place: string
}

export interface JobReader {
  /** Rejects with a SluiceError when Redis cannot say. */
  read(ref: JobRef, include: Include): Promise<Reading>
  close(): Promise<void>
}

/** One command for this many holds Redis for about 3 ms. */
const BATCH_MAX = 200
const IN_FLIGHT_MAX = 4
const WAITING_MAX = 50_000
/** What an answer is reckoned at before it is there, so that no command brings hundreds of large ones: with data, 16. */
const BATCH_BYTES = 1_048_576
const BYTES_WITH_DATA = 65_536
const BYTES_PLAIN = 1_024

const READ: RedisOperation = { label: 'jobView', priority: 'read', isWrite: false, commands: 1 }

interface Item {
  ref: JobRef
  /** As read-jobs.lua wants it: what to include, and the key. */
  arg: string
}

type ViewReply = [...JobReply] | [...JobReply, logs: string[]]

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
    const base = registry.base(queue)
    const args = [base, FIELDS_AND_DATA.length, ...FIELDS_AND_DATA, ...items.map(({ arg }) => arg)]
    const [place, views] = (await gateway.onQueue(queue, READ, (client) =>
      runScript(client, readJobsScript, [`${base}events`], args),
    )) as [string, (ViewReply | null)[]]
    if (views.some((view) => view !== null)) registry.remember(queue)
    return items.map(({ ref }, index) => ({ job: toResource(ref, views[index] ?? null), place }))
  }

  return {
    async read(ref, include) {
      const flag = (include.data ? 1 : 0) + (include.logs ? 2 : 0)
      const bytes = flag === 0 ? BYTES_PLAIN : BYTES_WITH_DATA
      return coalescer.add(ref.queue, { ref, arg: `${flag}${ref.key}` }, bytes)
    },
    close: coalescer.close,
  }
}

function toResource(ref: JobRef, view: ViewReply | null): JobResource | undefined {
  if (view === null) return undefined
  const [state, values, score, logs] = view
  const resource = resourceFromReply(ref, [state, values, score ?? null])
  return logs === undefined ? resource : { ...resource, logs }
}
