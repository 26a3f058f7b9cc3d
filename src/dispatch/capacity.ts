/** Reserves a worker's capacity just before a take, and returns the part that the take did not use. */
import type { TakeRequest, TakeResult } from './leased-job.ts'
import { EMPTY_TAKE } from './take-reply.ts'
import type { WorkerCommands } from './worker-commands.ts'

/** The request with `max` set to the worker's capacity; `undefined` if it has none now. Pair it with `returnUnused`. */
export function reserveCapacity(request: TakeRequest): TakeRequest | undefined {
  if (!request.capacity) return request
  const max = request.capacity.take()
  return max === 0 ? undefined : { ...request, max }
}

export function returnUnused({ capacity, max }: TakeRequest, jobCount: number): void {
  capacity?.give(max - jobCount)
}

/** Without capacity, resolves as for a worker whose concurrency limit is reached. Rejects as `take` does. */
export async function takeWithinCapacity(
  commands: Pick<WorkerCommands, 'take'>,
  request: TakeRequest,
): Promise<TakeResult> {
  const reserved = reserveCapacity(request)
  if (!reserved) return { ...EMPTY_TAKE, isLimitReached: true }
  let jobCount = 0
  try {
    const taken = await commands.take(reserved)
    jobCount = taken.jobs.length
    return taken
  } finally {
    returnUnused(reserved, jobCount)
  }
}
