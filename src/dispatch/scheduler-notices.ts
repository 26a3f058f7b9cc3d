/** Logs once why this service does not continue a scheduler, and remembers it for the health routes. */
import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'

/**
 * `stuck`: its job waits for a native worker, and none takes it. `legacy`: a repeatable job of BullMQ 5, which has ended.
 * `malformed`: it has ended, because its job could not be read.
 */
export interface SchedulerTrouble {
  queue: string
  schedulerId: string
  kind: 'stuck' | EndedKind
}

type EndedKind = 'legacy' | 'malformed'

export interface SchedulerNotices {
  /** `unknown`: only native workers can compute when its next job is due; `reason` says why. */
  note(queue: string, schedulerId: string, kind: 'unknown' | EndedKind, reason: string | undefined): void
  /** Those that have ended lately. */
  ended(): SchedulerTrouble[]
}

const NOTICES_MAX = 1_000
/** A notice is repeated after this, while its cause remains. */
const REPEAT_MS = 3_600_000
/** Most characters of an id or a reason in a line. */
const TEXT_MAX = 200

const MESSAGES = {
  unknown:
    'Only native workers can create the next job of this scheduler, so its jobs are left to them. Run a native ' +
    'worker with its settings.repeatStrategy, or give the scheduler a cron pattern.',
  legacy:
    'A repeatable job of BullMQ 5 or older has ended: BullMQ 6 does not repeat it. Replace it by upsertJobScheduler.',
  malformed:
    'The job of this scheduler is malformed, so the scheduler has ended. Create it again with upsertJobScheduler.',
}

export function createSchedulerNotices(log: Pick<Logger, 'warn'>): SchedulerNotices {
  const notices = new LRUCache<string, SchedulerTrouble | true>({ max: NOTICES_MAX, ttl: REPEAT_MS })
  return {
    note(queue, schedulerId, kind, reason) {
      const id = `${kind} ${queue} ${schedulerId}`
      if (notices.has(id)) return
      notices.set(id, kind === 'unknown' ? true : { queue, schedulerId, kind })
      const fields = { queue, scheduler: schedulerId.slice(0, TEXT_MAX), reason: reason?.slice(0, TEXT_MAX) }
      log.warn(fields, MESSAGES[kind])
    },
    ended: () => [...notices.values()].filter((notice) => notice !== true),
  }
}
