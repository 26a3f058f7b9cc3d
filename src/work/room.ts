/** Takes for a consumer whose room turns out in the moment in which it is served. */
import type { Taken, TakeRequest } from './held.ts'
import { NOTHING } from './replies.ts'
import type { Work } from './worker.ts'

/** Where there is no room now, that is as if its share were full. What is not needed of the room is given back. */
export async function takeWithRoom(work: Pick<Work, 'take'>, request: TakeRequest): Promise<Taken> {
  const { places } = request
  if (!places) return work.take(request)
  const max = places.take()
  if (max === 0) return { ...NOTHING, isShareFull: true }
  let count = 0
  try {
    const taken = await work.take({ ...request, max })
    count = taken.jobs.length
    return taken
  } finally {
    places.give(max - count)
  }
}
