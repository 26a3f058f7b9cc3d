/**
 * Leases given back: those of one queue are one command, in the order of the request; each stands alone. What is asked for
 * next is taken in the same command, unless others wait for it: they were here before.
 */
import { type ErrorCode, SluiceError } from '../errors.ts'
import type { Access } from '../keys/access.ts'
import type { Outcome } from '../queues/job-outcome.ts'
import type { Extension, Held, TakenJob, TakeRequest, Work } from '../queues/work.ts'
import type { LeaseSealer } from './lease.ts'
import type { Taker } from './taker.ts'

export interface Settled {
  /** One for each item, in order: the job's id, or why nothing was changed. */
  results: ({ id: string } | { id?: string; error: SluiceError })[]
  jobs: TakenJob[]
}

export interface Next {
  request: Omit<TakeRequest, 'queue'> & { queue: string | undefined }
  waitMs: number
}

export interface Settler {
  settle(
    items: { lease: string; outcome: Outcome }[],
    next: Next | undefined,
    access: Access,
    signal: AbortSignal,
  ): Promise<Settled>
  extend(items: { lease: string; extension: Extension }[], access: Access): Promise<Settled['results']>
}

export interface SettlerDeps {
  work: Work
  taker: Taker
  sealer: LeaseSealer
  /** Called with each job that is another now. */
  onWrite(queue: string, key: string): void
}

interface Opened<Value> {
  index: number
  held: Held
  value: Value
}

export function createSettler({ work, taker, sealer, onWrite }: SettlerDeps): Settler {
  /** Fills in what cannot be had; gives the rest by queue, in the order in which queues come. */
  function open<Value>(
    items: { lease: string; value: Value }[],
    access: Access,
    results: Settled['results'],
  ) {
    const byQueue = new Map<string, Opened<Value>[]>()
    items.forEach(({ lease, value }, index) => {
      try {
        const held = sealer.open(lease)
        if (!access.mayEnter(held.queue)) throw new SluiceError('JOB_NOT_FOUND')
        byQueue.set(held.queue, [...(byQueue.get(held.queue) ?? []), { index, held, value }])
      } catch (error) {
        results[index] = { error: error as SluiceError }
      }
    })
    return byQueue
  }

  function note(
    results: Settled['results'],
    { index, held }: Opened<unknown>,
    error: SluiceError | undefined,
  ) {
    const id = `${held.queue}:${held.key}`
    results[index] = error ? { id, error } : { id }
    onWrite(held.queue, held.key)
  }

  /** Of one queue; a command that failed as a whole has failed for each. */
  async function each<Value>(
    opened: Opened<Value>[],
    results: Settled['results'],
    act: () => Promise<(SluiceError | undefined)[]>,
  ): Promise<void> {
    try {
      const errors = await act()
      for (const [at, one] of opened.entries()) note(results, one, errors[at])
    } catch (error) {
      for (const one of opened) note(results, one, asSluiceError(error))
    }
  }

  return {
    async settle(items, next, access, signal) {
      const results: Settled['results'] = []
      const byQueue = open(
        items.map(({ lease, outcome }) => ({ lease, value: outcome })),
        access,
        results,
      )
      const queue = next?.request.queue ?? [...byQueue.keys()][0]
      if (queue !== undefined && next && !access.mayEnter(queue)) throw new SluiceError('QUEUE_NOT_FOUND')
      let jobs: TakenJob[] = []
      let hasAsked = false
      for (const [name, opened] of byQueue) {
        const isNext = next !== undefined && name === queue && taker.isFree(name)
        await each(opened, results, async () => {
          const pairs = opened.map(({ held, value }) => ({ held, outcome: value }))
          const { refused, taken } = await work.settle(
            name,
            pairs,
            isNext ? { ...next.request, queue: name } : undefined,
          )
          jobs = [...jobs, ...taken.jobs]
          hasAsked ||= isNext
          return refused
        })
      }
      if (!next || queue === undefined || jobs.length > 0 || (hasAsked && next.waitMs === 0))
        return { results, jobs }
      return { results, jobs: await taker.take({ ...next.request, queue }, next.waitMs, signal) }
    },
    async extend(items, access) {
      const results: Settled['results'] = []
      const byQueue = open(
        items.map(({ lease, extension }) => ({ lease, value: extension })),
        access,
        results,
      )
      for (const [name, opened] of byQueue) {
        await each(opened, results, () =>
          work.extend(
            name,
            opened.map(({ held, value }) => ({ held, extension: value })),
          ),
        )
      }
      return results
    },
  }
}

function asSluiceError(error: unknown): SluiceError {
  const internal: ErrorCode = 'INTERNAL'
  return error instanceof SluiceError ? error : new SluiceError(internal, { cause: error })
}
