/**
 * Settles and extends leases of any number of queues. The leases of one queue share one command and keep the order of the
 * request; each item succeeds or fails alone.
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

/** The id of an item's job, and, if nothing was changed, the error. The id is missing if the lease was not read. */
export type ItemResult = { id: string } | { id?: string; error: SluiceError }

export interface NextTake {
  /** Without a queue: that of the first lease that can be read. */
  request: Omit<TakeRequest, 'queue'> & { queue: string | undefined }
  waitMs: number
}

export interface SettleRequest {
  lease: string
  outcome: JobOutcome
}

export interface ExtendRequest {
  lease: string
  extension: LeaseExtension
}

export interface LeaseSettler {
  /**
   * Settles the items that are not refused yet, and takes `next`. Resolves with one result per item, in order, and the jobs that
   * were taken. Rejects with QUEUE_NOT_FOUND if `access` does not include the queue of `next`; nothing is settled then.
   */
  settle(
    items: (SettleRequest | SluiceError)[],
    next: NextTake | undefined,
    access: Access,
    signal: AbortSignal,
  ): Promise<{ results: ItemResult[]; jobs: LeasedJob[] }>
  /** Resolves with one result per item, in order. Does not reject. */
  extend(items: (ExtendRequest | SluiceError)[], access: Access): Promise<ItemResult[]>
}

export interface LeaseSettlerDeps {
  commands: Pick<WorkerCommands, 'extend'>
  dispatcher: Pick<Dispatcher, 'take' | 'settleAndTake'>
  sealer: LeaseSealer
  /** Called for each job that may have changed. */
  onWrite(queue: string, key: string): void
}

interface OpenedItem<Item> {
  /** The item's index in the request. */
  index: number
  lease: JobLease
  item: Item
}

export function createLeaseSettler(deps: LeaseSettlerDeps): LeaseSettler {
  const { commands, dispatcher, sealer, onWrite } = deps

  /** Groups by queue the items whose leases can be read. The others get their error. */
  function openLeases<Item extends { lease: string }>(
    items: (Item | SluiceError)[],
    access: Access,
    results: ItemResult[],
  ) {
    const byQueue = new Map<string, OpenedItem<Item>[]>()
    for (const [index, item] of items.entries()) {
      if (item instanceof SluiceError) {
        results[index] = { error: item }
        continue
      }
      try {
        const lease = sealer.open(item.lease)
        if (!access.canAccessQueue(lease.queue)) throw new SluiceError('JOB_NOT_FOUND')
        const ofQueue = byQueue.get(lease.queue)
        if (ofQueue) ofQueue.push({ index, lease, item })
        else byQueue.set(lease.queue, [{ index, lease, item }])
      } catch (error) {
        results[index] = { error: asSluiceError(error) }
      }
    }
    return byQueue
  }

  /** Records the results of one queue. A command that failed as a whole has failed for each item. */
  async function record<Item>(
    opened: OpenedItem<Item>[],
    results: ItemResult[],
    sent: Promise<(SluiceError | undefined)[]>,
  ): Promise<void> {
    const errors = await sent.catch((error: unknown) => opened.map(() => asSluiceError(error)))
    for (const [at, { index, lease }] of opened.entries()) {
      const id = `${lease.queue}:${lease.key}`
      const error = errors[at]
      results[index] = error ? { id, error } : { id }
      onWrite(lease.queue, lease.key)
    }
  }

  async function settle(
    items: (SettleRequest | SluiceError)[],
    next: NextTake | undefined,
    access: Access,
    signal: AbortSignal,
  ): Promise<{ results: ItemResult[]; jobs: LeasedJob[] }> {
    const results: ItemResult[] = []
    const byQueue = openLeases(items, access, results)
    const { waitMs = 0 } = next ?? {}
    const nextQueue = next?.request.queue ?? [...byQueue.keys()][0]
    const request = next && nextQueue !== undefined ? { ...next.request, queue: nextQueue } : undefined
    if (request && !access.canAccessQueue(request.queue)) throw new SluiceError('QUEUE_NOT_FOUND')
    const taking: Promise<TakeResult>[] = []
    const settleQueue = async (queue: string, opened: OpenedItem<SettleRequest>[]) => {
      const settlements = opened.map(({ lease, item }) => ({ lease, outcome: item.outcome }))
      if (queue !== request?.queue) return (await dispatcher.settleAndTake(queue, settlements)).refused
      const settled = await dispatcher.settleAndTake(queue, settlements, request, { waitMs, signal })
      taking.push(settled.taken)
      return settled.refused
    }
    await Promise.all(
      [...byQueue].map(([queue, opened]) => record(opened, results, settleQueue(queue, opened))),
    )
    if (!request) return { results, jobs: [] }
    // If no command settled jobs of its queue, or that command failed, the take has not begun yet.
    const [taken = dispatcher.take(request, waitMs, signal)] = taking
    // The results are reported even if the take fails.
    const { jobs } = await taken.catch(() => EMPTY_TAKE)
    return { results, jobs }
  }

  async function extend(items: (ExtendRequest | SluiceError)[], access: Access): Promise<ItemResult[]> {
    const results: ItemResult[] = []
    const byQueue = openLeases(items, access, results)
    await Promise.all(
      [...byQueue].map(([queue, opened]) => {
        const extensions = opened.map(({ lease, item }) => ({ lease, extension: item.extension }))
        return record(opened, results, commands.extend(queue, extensions))
      }),
    )
    return results
  }

  return { settle, extend }
}
