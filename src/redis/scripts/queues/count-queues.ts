/** Counts the jobs of several queues by state in one command, whose cost does not grow with the queues. */
import type { Redis } from 'ioredis'
import type { JobState } from '../../../bullmq/job-states.ts'
import { loadScript, runScript } from '../run-script.ts'

const script = loadScript('queues/count-queues')

/** Jobs by state. */
export type JobCounts = Record<JobState, number>

/**
 * `bases`: what the keys of each queue start with. Resolves with the counts in the same order; `undefined` for a queue one of
 * whose keys is not what BullMQ writes. Rejects as Redis does.
 */
export async function countQueues(client: Redis, bases: string[]): Promise<(JobCounts | undefined)[]> {
  const keys = bases.map((base) => `${base}meta`)
  const replies = await runScript(client, script, keys, [])
  return (replies as (number[] | 0)[]).map((counts) => (counts === 0 ? undefined : toCounts(counts)))
}

function toCounts([waiting = 0, active = 0, ...sizes]: number[]): JobCounts {
  const [delayed = 0, prioritized = 0, waitingChildren = 0, completed = 0, failed = 0] = sizes
  return { waiting, delayed, prioritized, active, 'waiting-children': waitingChildren, completed, failed }
}
