/**
 * The names of the queues that hold or held jobs, in a sorted set by their last use, because BullMQ keeps no list of queues.
 * Clients choose the names, so the set is bounded: a name that no process has used for KNOWN_QUEUES_IDLE is forgotten when its
 * queue is empty, and above KNOWN_QUEUES_MAX those unused for the longest are.
 *
 * Each process writes a name again well before it can be due. So no process relies on a name that another one has forgotten,
 * and a queue that is enqueued to while its name is being forgotten is written again, as its job is stored first.
 */
import { LRUCache } from 'lru-cache'
import type { RedisGateway, RedisOperation } from '../redis/gateway/redis-gateway.ts'
import type { Keyspace } from '../redis/keyspace.ts'
import { pruneQueues } from '../redis/scripts/queues/prune-queues.ts'
import {
  type KnownQueuesBounds,
  type RememberReply,
  rememberQueues,
} from '../redis/scripts/queues/remember-queues.ts'

export interface KnownNames {
  total: number
  /** The queues used last, the latest first. */
  names: string[]
}

export interface KnownQueuesStats {
  /** Names in the set when this process last wrote to it; `null` before. */
  known: number | null
  /** Names that this process has forgotten, because their queues were empty and unused. */
  forgotten: number
  /** Names that this process has removed, because there were more than KNOWN_QUEUES_MAX. */
  displaced: number
}

export interface KnownQueues {
  /** Records that the queue is in use, in the background. Most calls do nothing. */
  remember(name: string): void
  /** Two commands. Rejects with a SluiceError. */
  known(limit: number): Promise<KnownNames>
  /** Names that this process has written. */
  seen(): number
  stats(): KnownQueuesStats
  /** Resolves when the names that were remembered are written. */
  close(): Promise<void>
}

/** Beyond this many names the least recently used are forgotten by this process, and written again when used. */
const MAX_REMEMBERED = 10_000
/** A use is written at most once in this time, and at least four times before the name would be due. */
const REFRESH_MS = 3_600_000
/** New names are collected this long and written in one command. Only listings read them, so the delay is harmless. */
const REMEMBER_AFTER_MS = 100
const NAMES_PER_COMMAND = 500
/** Checking these takes Redis about 0.3 ms. */
const PRUNE_PAGE = 100
/** Pause between two pages: a million names take about a quarter of an hour. */
const PRUNE_AFTER_MS = 100

const REMEMBER: RedisOperation = { label: 'rememberQueue', priority: 'list', isWrite: true, commands: 1 }
const PRUNE: RedisOperation = { label: 'pruneQueues', priority: 'list', isWrite: true, commands: 1 }
const KNOWN: RedisOperation = { label: 'listQueues', priority: 'list', isWrite: false, commands: 2 }

export interface KnownQueuesDeps {
  keyspace: Keyspace
  gateway: RedisGateway
  maxKnown: number
  idleMs: number
}

export function createKnownQueues({ keyspace, gateway, maxKnown, idleMs }: KnownQueuesDeps): KnownQueues {
  const bounds: KnownQueuesBounds = { maxNames: maxKnown, idleMs, pageSize: PRUNE_PAGE }
  const refreshMs = Math.min(REFRESH_MS, idleMs / 4)
  /** When each name was last written, as performance.now(). */
  const writtenAt = new LRUCache<string, number>({ max: MAX_REMEMBERED })
  const unwrittenNames: string[] = []
  const commands = new Set<Promise<void>>()
  let writeTimer: NodeJS.Timeout | undefined
  let pruneTimer: NodeJS.Timeout | undefined
  let isClosed = false
  let known: number | null = null
  let forgotten = 0
  let displaced = 0

  function remember(name: string): void {
    const now = performance.now()
    const lastAt = writtenAt.get(name)
    if (lastAt !== undefined && now - lastAt < refreshMs) return
    writtenAt.set(name, now)
    writeTimer ??= setTimeout(writeNames, REMEMBER_AFTER_MS)
    unwrittenNames.push(name)
  }

  function writeNames(): void {
    clearTimeout(writeTimer)
    writeTimer = undefined
    while (unwrittenNames.length > 0) write(unwrittenNames.splice(0, NAMES_PER_COMMAND))
  }

  function write(names: string[]): void {
    const reply = gateway.onAdmin(REMEMBER, (client) =>
      rememberQueues(client, keyspace.knownQueues, bounds, names),
    )
    track(
      reply.then(note, () => {
        // The next job of the queue tries again.
        for (const name of names) writtenAt.delete(name)
      }),
    )
  }

  /** Checks names page by page until none is due. A failure ends it; the next name that is written begins again. */
  function prune(names: string[]): void {
    pruneTimer = undefined
    const queues = names.map((name) => ({
      name,
      base: keyspace.queueBase(name),
      subscription: keyspace.subscription(name),
    }))
    const reply = gateway.onAdmin(PRUNE, (client) =>
      pruneQueues(client, keyspace.knownQueues, bounds, queues),
    )
    track(
      reply.then(
        (pruned) => {
          forgotten += pruned.forgotten
          note(pruned)
        },
        () => {},
      ),
    )
  }

  function note(reply: RememberReply): void {
    known = reply.known
    displaced += reply.displaced
    if (isClosed || (reply.due.length === 0 && reply.known <= maxKnown)) return
    pruneTimer ??= setTimeout(() => prune(reply.due), PRUNE_AFTER_MS)
  }

  function track(command: Promise<void>): void {
    const tracked = command.finally(() => commands.delete(tracked))
    commands.add(tracked)
  }

  return {
    remember,
    async known(limit) {
      return gateway.onAdmin(KNOWN, async (client) => {
        const [total, names] = await Promise.all([
          client.zcard(keyspace.knownQueues),
          client.zrevrange(keyspace.knownQueues, 0, limit - 1),
        ])
        return { total, names }
      })
    },
    seen: () => writtenAt.size,
    stats: () => ({ known, forgotten, displaced }),
    async close() {
      isClosed = true
      clearTimeout(pruneTimer)
      writeNames()
      await Promise.allSettled(commands)
    },
  }
}
