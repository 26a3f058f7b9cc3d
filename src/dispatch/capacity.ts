/** Takes for a consumer whose room turns out in the moment in which it is served. */
import type { TakeRequest, TakeResult } from './leased-job.ts'
import { EMPTY_TAKE } from './take-reply.ts'
import type { WorkerCommands } from './worker-commands.ts'

/** Where there is no room now, that is as if its share were full. What is not needed of the room is given back. */
export async function takeWithinCapacity(
  work: Pick<WorkerCommands, 'take'>,
  request: TakeRequest,
): Promise<TakeResult> {
  const { capacity: places } = request
  if (!places) return work.take(request)
  const max = places.take()
  if (max === 0) return { ...EMPTY_TAKE, isLimitReached: true }
  let count = 0
  try {
    const taken = await work.take({ ...request, max })
    count = taken.jobs.length
    return taken
  } finally {
    places.give(max - count)
  }
}
