/**
 * Moves jobs whose lock has expired back to wait. BullMQ marks active jobs in one check and, in the next, moves those that
 * are still marked and not locked. In BullMQ only a native worker runs these checks, so this service runs them as well.
 *
 * A check reports when the next lock expires, so a queue costs a few checks per lease. A queue without active jobs, or
 * without workers in this process, costs none.
 */
import { createCommandBuilder } from '../bullmq/command-builder.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import type { RedisClock } from '../redis/redis-clock.ts'
import { recoverStalledJobs, type StalledReport } from '../redis/scripts/recover-stalled.ts'

export interface StalledRecovery {
  /** A worker of this process waits for jobs of the queue, until the returned function is called. */
  watch(queue: string): () => void
  /** A job of the queue was taken in this process and is leased until `untilMs`, ms since 1970. */
  noteLeased(queue: string, untilMs: number): void
  /** A job of the queue was taken by any process. */
  noteActive(queue: string): void
  close(): void
}

interface Watch {
  watchers: number
  /** When the last lease of this process ends, ms since 1970. */
  leasedUntilMs: number
  timer: NodeJS.Timeout | undefined
  /** When the timer fires, ms since 1970; infinite: it is not set. */
  checkAtMs: number
}

/** Only one replica of this service checks a queue within this time. */
const INTERVAL_MS = 900
/** Delay of the second check, which moves what the first has marked. */
const RECHECK_MS = 1_000
/** Delay of the check for a job that another process took, whose lock has an unknown length. */
const FOREIGN_LEASE_MS = 4_000
const RECHECK_MAX_MS = 30_000
/** Added to the end of a lock, for clock differences and latency. */
const MARGIN_MS = 50

const CHECK: RedisOperation = { label: 'recoverStalled', priority: 'list', isWrite: true, commands: 1 }

export interface StalledRecoveryDeps {
  keyspace: Keyspace
  gateway: RedisGateway
  /** How often a job may stall before it fails. */
  maxStalledCount: number
  clock: Pick<RedisClock, 'nowMs'>
}

export function createStalledRecovery({
  keyspace,
  gateway,
  maxStalledCount,
  clock,
}: StalledRecoveryDeps): StalledRecovery {
  const bullmq = createCommandBuilder(keyspace.prefix, clock.nowMs)
  const watches = new Map<string, Watch>()
  let isClosed = false

  function watchOf(queue: string): Watch {
    let watch = watches.get(queue)
    if (!watch) {
      watch = { watchers: 0, leasedUntilMs: 0, timer: undefined, checkAtMs: Number.POSITIVE_INFINITY }
      watches.set(queue, watch)
    }
    return watch
  }

  /** Clients choose the names of queues, so unused entries must not accumulate. */
  function forgetUnused(queue: string, { watchers, checkAtMs }: Watch): void {
    if (watchers === 0 && checkAtMs === Number.POSITIVE_INFINITY) watches.delete(queue)
  }

  function checkAt(queue: string, watch: Watch, atMs: number): void {
    if (isClosed || atMs >= watch.checkAtMs) return
    clearTimeout(watch.timer)
    watch.checkAtMs = atMs
    watch.timer = setTimeout(() => void check(queue, watch), Math.max(0, atMs - clock.nowMs()))
  }

  async function check(queue: string, watch: Watch): Promise<void> {
    watch.checkAtMs = Number.POSITIVE_INFINITY
    const recheckMs = await recover(queue).then(recheckDelay, () => RECHECK_MS)
    const isNeeded = watch.watchers > 0 || watch.leasedUntilMs + RECHECK_MAX_MS > clock.nowMs()
    if (recheckMs !== undefined && isNeeded) checkAt(queue, watch, clock.nowMs() + recheckMs)
    else forgetUnused(queue, watch)
  }

  async function recover(queue: string): Promise<StalledReport> {
    const command = await bullmq.recoverStalled(queue, {
      maxStalledCount,
      intervalMs: INTERVAL_MS,
      // Not BullMQ's key: native workers set that to skip checks for half a minute.
      checkKey: keyspace.stalledCheck(queue),
    })
    return gateway.onQueue(queue, CHECK, (client) => recoverStalledJobs(client, command))
  }

  return {
    watch(queue) {
      const watch = watchOf(queue)
      watch.watchers++
      // A process that has ended may have left active jobs behind.
      checkAt(queue, watch, clock.nowMs())
      return () => {
        watch.watchers--
        forgetUnused(queue, watch)
      }
    },
    noteLeased(queue, untilMs) {
      const watch = watchOf(queue)
      watch.leasedUntilMs = Math.max(watch.leasedUntilMs, untilMs)
      checkAt(queue, watch, untilMs + MARGIN_MS)
    },
    noteActive(queue) {
      const watch = watchOf(queue)
      // A check that is due covers this job.
      if (watch.checkAtMs === Number.POSITIVE_INFINITY)
        checkAt(queue, watch, clock.nowMs() + FOREIGN_LEASE_MS)
    },
    close() {
      isClosed = true
      for (const { timer } of watches.values()) clearTimeout(timer)
    },
  }
}

/** Time until the next check, ms; `undefined`: no job is active, so none is needed. */
export function recheckDelay({ activeCount, firstExpiryMs }: StalledReport): number | undefined {
  if (activeCount === 0) return undefined
  if (firstExpiryMs < 0) return RECHECK_MS
  return Math.min(Math.max(firstExpiryMs + MARGIN_MS, RECHECK_MS), RECHECK_MAX_MS)
}
