/**
 * Jobs whose lock has run out go back to wait. BullMQ marks what is active at one look, and at the next moves what is marked
 * and no longer locked; nobody looks unless a native worker runs, so it is done here. A look tells when the next lock runs
 * out, so that a queue costs a few looks for the length of a lease; none while nothing is active, or nobody here cares.
 */

import { createCommandBuilder } from '../bullmq/command-builder.ts'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { recoverStalledJobs } from '../redis/scripts/recover-stalled.ts'

export interface StalledRecovery {
  /** Somebody wants jobs of this queue, until what is returned is called. */
  watch(queue: string): () => void
  /** A job of this queue was taken here, and is held until then, ms since 1970. */
  noteLeased(queue: string, untilMs: number): void
  /** A job of this queue was taken somewhere. */
  noteActive(queue: string): void
  close(): void
}

interface Watch {
  watchers: number
  heldUntilMs: number
  timer: NodeJS.Timeout | undefined
  /** When the timer fires, ms since 1970. */
  lookAtMs: number
}

/** Of several replicas one looks in this time. */
const INTERVAL_MS = 900
/** The second look, which moves what the first has marked, comes this much later. */
const AGAIN_MS = 1_000
/** A lock that was not taken here, of unknown length. */
const UNKNOWN_MS = 4_000
const LONGEST_MS = 30_000
/** Past the end of a lock, for clocks and the way. */
const MARGIN_MS = 50
/** Its place among the keys of moveStalledJobsToWait. */
const STALLED_CHECK_KEY = 3

const LOOK: RedisOperation = { label: 'recoverStalled', priority: 'list', isWrite: true, commands: 1 }

export interface StalledRecoveryDeps {
  keyspace: Keyspace
  gateway: RedisGateway
  /** How often a job may stall before it fails. */
  maxStalledCount: number
}

export function createStalledRecovery({
  keyspace,
  gateway,
  maxStalledCount,
}: StalledRecoveryDeps): StalledRecovery {
  const bullmq = createCommandBuilder(keyspace.prefix)
  const watches = new Map<string, Watch>()
  let isClosed = false

  function watchOf(queue: string): Watch {
    let watch = watches.get(queue)
    if (!watch) {
      watch = { watchers: 0, heldUntilMs: 0, timer: undefined, lookAtMs: Number.POSITIVE_INFINITY }
      watches.set(queue, watch)
    }
    return watch
  }

  /** Unless somebody cares, or a look is due: names of queues are callers' to choose. */
  function forget(queue: string, { watchers, lookAtMs }: Watch): void {
    if (watchers === 0 && lookAtMs === Number.POSITIVE_INFINITY) watches.delete(queue)
  }

  function lookAt(queue: string, watch: Watch, atMs: number): void {
    if (isClosed || atMs >= watch.lookAtMs) return
    clearTimeout(watch.timer)
    watch.lookAtMs = atMs
    watch.timer = setTimeout(() => void look(queue, watch), Math.max(0, atMs - Date.now()))
  }

  async function look(queue: string, watch: Watch): Promise<void> {
    watch.lookAtMs = Number.POSITIVE_INFINITY
    const next = await send(queue).catch(() => AGAIN_MS)
    const isWanted = watch.watchers > 0 || watch.heldUntilMs + LONGEST_MS > Date.now()
    if (next !== undefined && isWanted) lookAt(queue, watch, Date.now() + next)
    else forget(queue, watch)
  }

  /** After how many ms to look again; `undefined`: nothing is active. */
  async function send(queue: string): Promise<number | undefined> {
    const opts = { maxStalledCount, stalledInterval: INTERVAL_MS }
    const command = await bullmq.recoverStalled(queue, opts)
    // A clock of our own: that of native workers lets nobody look for half a minute.
    command.list[STALLED_CHECK_KEY] = keyspace.stalledCheck(queue)
    const [active, firstMs] = await gateway.onQueue(queue, LOOK, (client) =>
      recoverStalledJobs(client, command),
    )
    if (active === 0) return undefined
    return firstMs < 0 ? AGAIN_MS : Math.min(Math.max(firstMs + MARGIN_MS, AGAIN_MS), LONGEST_MS)
  }

  return {
    watch(queue) {
      const watch = watchOf(queue)
      watch.watchers++
      // For what a process that is no more has left.
      lookAt(queue, watch, Date.now())
      return () => {
        watch.watchers--
        forget(queue, watch)
      }
    },
    noteLeased(queue, untilMs) {
      const watch = watchOf(queue)
      watch.heldUntilMs = Math.max(watch.heldUntilMs, untilMs)
      lookAt(queue, watch, untilMs + MARGIN_MS)
    },
    noteActive(queue) {
      const watch = watchOf(queue)
      // The look that is due will see it.
      if (watch.lookAtMs === Number.POSITIVE_INFINITY) lookAt(queue, watch, Date.now() + UNKNOWN_MS)
    },
    close() {
      isClosed = true
      for (const { timer } of watches.values()) clearTimeout(timer)
    },
  }
}
