/**
 * Decides which jobs of a take reach the worker. The others are settled: malformed jobs fail, and a job of a scheduler whose
 * next job cannot be created goes back to the front of its queue, since the scheduler would end with it.
 */
import type { LeasedJob, TakeRequest } from './leased-job.ts'
import type { MalformedJobs } from './malformed-jobs.ts'
import type { ScheduleNext } from './scheduler-iteration.ts'
import type { SchedulerNotices } from './scheduler-notices.ts'
import type { SkippedJobs } from './skipped-jobs.ts'
import { rejectUnsettleable, type TakeReply } from './take-reply.ts'

type Rejected = TakeReply['rejected']

export interface WorkableJobsDeps {
  scheduleNext: ScheduleNext
  malformedJobs: MalformedJobs
  notices: SchedulerNotices
  skipped: SkippedJobs
  settle(request: TakeRequest, rejected: Rejected): Promise<unknown>
  /** Ms since 1970. */
  nowMs(): number
}

/** Delay of a job that must be left to native workers when too many are skipped, ms. */
const UNSKIPPABLE_MS = 60_000

/** Returns a function that leaves the workable jobs in the reply, and creates the next jobs of their schedulers. */
export function createWorkableJobs(deps: WorkableJobsDeps) {
  const { scheduleNext, malformedJobs, notices, skipped, settle, nowMs } = deps

  async function leaveToOthers(queue: string, reply: TakeReply): Promise<void> {
    for (const { schedulerId, fields, lease } of reply.scheduled) {
      const { result, reason } = await scheduleNext(queue, schedulerId, fields, lease.key)
      if (result === 'created') continue
      // No worker can do anything with a malformed job.
      const isMalformed = reply.malformed.some(({ key }) => key === lease.key)
      if (result !== 'refused') notices.note(queue, schedulerId, isMalformed ? 'malformed' : result, reason)
      if (isMalformed || result === 'legacy') continue
      const isSkipped = skipped.add(queue, lease.key, schedulerId, result)
      reply.rejected = reply.rejected.filter((other) => other.lease.key !== lease.key)
      const outcome = isSkipped
        ? ({ outcome: 'release' } as const)
        : ({ outcome: 'retry', delayMs: UNSKIPPABLE_MS } as const)
      reply.rejected.push({ lease, outcome })
    }
  }

  return async function selectWorkable(request: TakeRequest, reply: TakeReply): Promise<void> {
    const { queue, whyUnsettleable } = request
    if (whyUnsettleable) rejectUnsettleable(reply, whyUnsettleable)
    malformedJobs.note(queue, reply.malformed)
    await leaveToOthers(queue, reply)
    const { rejected, malformed } = reply
    if (rejected.length > 0) {
      // Only the lock holder can fail a job. If that fails now, the lock expires and the next process to take the job does it.
      await settle(request, rejected).catch(() => {})
      const rejectedKeys = new Set(rejected.map(({ lease }) => lease.key))
      reply.jobs = reply.jobs.filter(({ key }: LeasedJob) => !rejectedKeys.has(key))
    }
    if (reply.jobs.length > 0) return
    reply.mayHaveMore = malformed.length > 0 || rejected.length > 0
    const skippedMs = skipped.nextInMs(queue)
    if (skippedMs !== undefined) reply.nextAtMs = soonest(reply.nextAtMs, nowMs() + skippedMs)
  }
}

/** 0: never. */
function soonest(oneMs: number, otherMs: number): number {
  return oneMs > 0 ? Math.min(oneMs, otherMs) : otherMs
}
