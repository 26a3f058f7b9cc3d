/**
 * Leases given back: those of one queue are one command, in the order of the request; each stands alone. What is asked for
 * next is taken in the same command, unless others wait for it: they were here before.
 */

import type { Access } from '../auth/access.ts'
import type { LeaseExtension } from '../bullmq/command-builder.ts'
import type { JobLease } from '../bullmq/job-lease.ts'
import type { JobOutcome } from '../bullmq/job-outcome.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import type { LeasedJob, TakeRequest, TakeResult } from '../dispatch/leased-job.ts'
import { EMPTY_TAKE } from '../dispatch/take-reply.ts'
import type { WorkerCommands } from '../dispatch/worker-commands.ts'
import { asSluiceError, SluiceError } from '../errors.ts'
import type { LeaseSealer } from './lease-token.ts'

/** Of an item: the job's id, or why nothing was changed. */
export type ItemResult = { id: string } | { id?: string; error: SluiceError }

export interface Next {
  /** Without a queue: that of the first lease. */
  request: Omit<TakeRequest, 'queue'> & { queue: string | undefined }
  waitMs: number
}

export interface LeaseSettler {
  /** Of each item what it came to, in order; and what was taken. Rejects only for what is asked wrongly. */
  settle(
    items: { lease: string; outcome: JobOutcome }[],
    next: Next | undefined,
    access: Access,
    signal: AbortSignal,
  ): Promise<{ results: ItemResult[]; jobs: LeasedJob[] }>
  extend(items: { lease: string; extension: LeaseExtension }[], access: Access): Promise<ItemResult[]>
}

export interface LeaseSettlerDeps {
  work: WorkerCommands
  line: Dispatcher
  sealer: LeaseSealer
  /** Called with each job that is another now. */
  onWrite(queue: string, key: string): void
}

interface Opened<Value> {
  index: number
  held: JobLease
  value: Value
}

export function createLeaseSettler({ work, line, sealer, onWrite }: LeaseSettlerDeps): LeaseSettler {
  /** The items that can be read, by queue, in the order in which queues come; of the others it is noted why not. */
  function open<Value>(items: { lease: string; value: Value }[], access: Access, results: ItemResult[]) {
    const byQueue = new Map<string, Opened<Value>[]>()
    for (const [index, { lease, value }] of items.entries()) {
      try {
        const held = sealer.open(lease)
        if (!access.canAccessQueue(held.queue)) throw new SluiceError('JOB_NOT_FOUND')
        const ofQueue = byQueue.get(held.queue)
        if (ofQueue) ofQueue.push({ index, held, value })
        else byQueue.set(held.queue, [{ index, held, value }])
      } catch (error) {
        results[index] = { error: error as SluiceError }
      }
    }
    return byQueue
  }

  /** Of one queue; a command that failed as a whole has failed for each. */
  async function each<Value>(
    opened: Opened<Value>[],
    results: ItemResult[],
    act: () => Promise<(SluiceError | undefined)[]>,
  ): Promise<void> {
    const errors = await act().catch((error: unknown) => opened.map(() => asSluiceError(error)))
    for (const [at, { index, held }] of opened.entries()) {
      const id = `${held.queue}:${held.key}`
      const error = errors[at]
      results[index] = error ? { id, error } : { id }
      onWrite(held.queue, held.key)
    }
  }

  return {
    async settle(items, wanted, access, signal) {
      const results: ItemResult[] = []
      const byQueue = open(
        items.map(({ lease, outcome }) => ({ lease, value: outcome })),
        access,
        results,
      )
      const queue = wanted?.request.queue ?? [...byQueue.keys()][0]
      const request = wanted && queue !== undefined ? { ...wanted.request, queue } : undefined
      if (request && !access.canAccessQueue(request.queue)) throw new SluiceError('QUEUE_NOT_FOUND')
      const heard = line.version(queue ?? '')
      let taken: TakeResult | undefined
      await Promise.all(
        [...byQueue].map(([name, opened]) =>
          each(opened, results, async () => {
            const pairs = opened.map(({ held, value }) => ({ lease: held, outcome: value }))
            const isNext = name === queue && line.hasNoWaiters(name)
            const settled = await work.settle(name, pairs, isNext ? request : undefined)
            if (isNext && request) taken = settled.taken
            return settled.refused
          }),
        ),
      )
      if (!request) return { results, jobs: [] }
      const seen = taken && { taken, version: heard }
      // What was settled is told, also when there can be nothing next.
      const next = await line.take(request, wanted!.waitMs, signal, seen).catch(() => EMPTY_TAKE)
      return { results, jobs: next.jobs }
    },
    async extend(items, access) {
      const results: ItemResult[] = []
      const byQueue = open(
        items.map(({ lease, extension }) => ({ lease, value: extension })),
        access,
        results,
      )
      await Promise.all(
        [...byQueue].map(([name, opened]) =>
          each(opened, results, () =>
            work.extend(
              name,
              opened.map(({ held, value }) => ({ held, extension: value })),
            ),
          ),
        ),
      )
      return results
    },
  }
}
