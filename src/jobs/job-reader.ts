/**
 * A job as it stands in Redis at one instant: one command (job-view.lua) whose cost does not grow with the queue.
 */
import type { Registry, State } from '../queues/registry.ts'
import type { Gateway, Operation } from '../redis/gateway.ts'
import { jobViewScript, runScript } from '../redis/scripts.ts'
import type { JobRef } from './id.ts'
import { type JobHash, type JobResource, resourceFromHash } from './job-resource.ts'

export interface Include {
  data: boolean
  logs: boolean
}

export interface JobReader {
  /** `undefined`: there is no such job. Rejects with a SluiceError when Redis cannot say. */
  read(ref: JobRef, include: Include): Promise<JobResource | undefined>
}

const FIELDS: readonly (keyof JobHash)[] = [
  // The script expects these two first.
  'finishedOn',
  'timestamp',
  'name',
  'opts',
  'progress',
  'priority',
  'atm',
  'processedOn',
  'returnvalue',
  'failedReason',
  'stacktrace',
  'parentKey',
  'deid',
]
const FIELDS_AND_DATA: readonly (keyof JobHash)[] = [...FIELDS, 'data']

/** BullMQ keeps twelve bits beside the time in the score of a delayed job (getDelayedScore). */
const SCORE_PER_MS = 0x1000

const READ: Operation = { label: 'jobView', priority: 'read', isWrite: false, commands: 1 }

type Reply = [state: State, values: (string | null)[], logs: string[], score?: string]

export function createJobReader(registry: Registry, gateway: Gateway): JobReader {
  return {
    async read(ref, include) {
      const { base } = registry.open(ref.queue)
      const names = include.data ? FIELDS_AND_DATA : FIELDS
      const args = [base, ref.key, include.logs ? '1' : '0', ...names]
      const reply = (await gateway.onQueue(ref.queue, READ, (client) =>
        runScript(client, jobViewScript, [base + ref.key], args),
      )) as Reply | null
      if (!reply) return undefined
      registry.remember(ref.queue)
      const [state, values, logs, score] = reply
      const hash: Partial<JobHash> = {}
      names.forEach((name, index) => {
        const value = values[index]
        if (value !== null && value !== undefined) hash[name] = value
      })
      const delayedUntilMs = score === undefined ? undefined : Math.floor(Number(score) / SCORE_PER_MS)
      const resource = resourceFromHash(ref, state, hash as JobHash, delayedUntilMs)
      return include.logs ? { ...resource, logs } : resource
    },
  }
}
