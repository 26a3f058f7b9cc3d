/**
 * Workers that keep a job beyond the end of its lease, and settle it too late: just after the lease expired, while another
 * worker holds the job, and after that worker has completed it. Records every response and its time.
 */
import type { Queue } from 'bullmq'
import type { HttpClient } from './clients.ts'
import type { RedisServer, Service } from './processes.ts'
import type { Testbed } from './testbed.ts'
import { sleep, until } from './timing.ts'
import {
  completeUnlocked,
  type Lease,
  type LeaseAction,
  type LeaseResult,
  openNativeTaker,
  sendLeaseAction,
  take,
} from './workers.ts'

/** What happens to the replica of the late workers: nothing, SIGSTOP until other workers have the jobs, or SIGKILL during takes. */
export type Fate = 'left alone' | 'stopped' | 'killed'

export interface Round {
  testbed: Testbed
  redis: RedisServer
  httpClient: HttpClient
  queue: Queue
  /** The replica of the late workers. */
  lateReplica: Service
  /** The replica of the other workers. */
  otherReplica: Service
  fate: Fate
  /** The number of late workers, and of jobs. */
  count: number
  leaseMs: number
  /** How long to wait for redelivery, from the end of the leases. */
  patienceMs: number
  /** Control: late workers complete their jobs directly in Redis, without the lock. */
  isLockless?: boolean
  /** Control: the other workers take jobs from Redis directly, so that no replica receives takes. */
  isUnwatched?: boolean
}

/** The history of a job. */
export interface Life {
  key: string
  /** Leases of late workers; empty if the response was lost, or the job was not taken. */
  leases: Lease[]
  /** When the lock expires, ms since 1970; slightly after `expiresAt` of the lease. */
  lockEndsAt: number
  /** When other workers received the job. */
  givenAt: number[]
  /** Completions by other workers. */
  completions: number
  late: LateAction[]
}

export interface LateAction extends LeaseResult {
  kind: LeaseAction['kind']
}

/** A job that another worker holds in time. */
interface Holding {
  key: string
  complete(): Promise<boolean>
}

/** The lease of the other workers. */
const LONG_LEASE_MS = 60_000
const TAKERS = 5
const MOST_AT_ONCE = 100
const PAST_END_MS = 50

const by = (worker: string) => ({ by: worker })
const COMPLETE: LeaseAction = { kind: 'complete', result: by('late') }
const OTHER_ACTIONS: LeaseAction[] = [
  { kind: 'fail' },
  { kind: 'retry' },
  { kind: 'release' },
  { kind: 'extend', leaseMs: 600_000, progress: 99, log: 'late' },
]

export async function outliveLeases(round: Round): Promise<Life[]> {
  const { httpClient, queue, lateReplica, fate, count, leaseMs, patienceMs } = round
  const lives: Life[] = Array.from({ length: count }, (_, i) => ({
    ...{ key: `job-${i}`, leases: [], lockEndsAt: 0, givenAt: [], completions: 0, late: [] },
  }))
  const lifeOf = new Map(lives.map((life) => [life.key, life]))
  await queue.addBulk(lives.map(({ key }) => ({ name: 'n', data: {}, opts: { jobId: key } })))

  let responses = 0
  let killing: Promise<void> | undefined
  const taking = lives.map(async () => {
    const [lease] = await take(httpClient, lateReplica.url, queue.name, { leaseMs })
    if (lease) lifeOf.get(lease.key)!.leases.push(lease)
    // Kills the replica during takes: some responses are lost, and no worker knows those leases.
    if (fate === 'killed' && ++responses > count / 2) killing ??= lateReplica.kill()
  })
  await Promise.all(taking)
  await killing
  if (fate === 'stopped') lateReplica.freeze()
  await readLocks(round, lives)
  const latest = Math.max(...lives.map(({ lockEndsAt }) => lockEndsAt))

  const isOver = () => Date.now() > latest + patienceMs || lives.every(({ givenAt }) => givenAt.length > 0)
  // Requests to a stopped replica are sent in time, but processed after the jobs were given to other workers.
  const firstAttempts = lives.map(async (life) => {
    if (fate !== 'stopped') await sleep(life.lockEndsAt + PAST_END_MS - Date.now())
    await sendLate(round, life, COMPLETE)
  })
  const thawed = fate === 'stopped' ? thawWhenOver() : Promise.resolve()
  async function thawWhenOver(): Promise<void> {
    await until('all jobs are redelivered', isOver, 60_000)
    lateReplica.thaw()
    await Promise.all(firstAttempts)
  }

  async function hold({ key, complete }: Holding): Promise<void> {
    const life = lifeOf.get(key)!
    life.givenAt.push(Date.now())
    await thawed
    await sendLate(round, life, COMPLETE)
    await sendLate(round, life, OTHER_ACTIONS[lives.indexOf(life) % OTHER_ACTIONS.length]!)
    if (await complete()) life.completions++
    await sendLate(round, life, COMPLETE)
  }
  const held: Promise<void>[] = []
  const takeSome = openTaker(round)
  const takers = Array.from({ length: TAKERS }, async () => {
    while (!isOver()) for (const holding of await takeSome()) held.push(hold(holding))
  })
  await Promise.all(takers)
  await Promise.all([...firstAttempts, ...held])
  return lives
}

/** Reads from Redis, because some responses were lost; the current time for a job without a lock. */
async function readLocks({ redis, queue }: Round, lives: Life[]): Promise<void> {
  const pipeline = redis.client.pipeline()
  for (const { key } of lives) pipeline.pttl(queue.toKey(`${key}:lock`))
  const ttls = (await pipeline.exec()) ?? []
  for (const [index, life] of lives.entries())
    life.lockEndsAt = Date.now() + Math.max(0, Number(ttls[index]![1]))
}

async function sendLate(round: Round, life: Life, action: LeaseAction): Promise<void> {
  const { httpClient, queue, lateReplica, otherReplica, fate, isLockless } = round
  for (const { lease, key } of life.leases) {
    const result = isLockless
      ? { status: (await completeUnlocked(queue, key, by('late'))) ? 200 : 409, code: 'LEASE_LOST' }
      : await sendLeaseAction(
          httpClient,
          (fate === 'killed' ? otherReplica : lateReplica).url,
          lease,
          action,
          60_000,
        )
    life.late.push({ kind: action.kind, ...result })
  }
}

/** How the other workers take jobs. */
function openTaker({
  testbed,
  redis,
  httpClient,
  queue,
  otherReplica,
  isUnwatched,
}: Round): () => Promise<Holding[]> {
  if (isUnwatched) {
    const takeOne = openNativeTaker(testbed, redis, queue.name)
    return async () => {
      const job = await takeOne()
      if (!job) return []
      const complete = () =>
        job.moveToCompleted(by('another'), job.token!, false).then(
          () => true,
          () => false,
        )
      return [{ key: job.id!, complete }]
    }
  }
  return async () => {
    const options = { max: MOST_AT_ONCE, wait: 1, leaseMs: LONG_LEASE_MS }
    const taken = await take(httpClient, otherReplica.url, queue.name, options)
    return taken.map(({ key, lease }) => ({
      key,
      async complete() {
        const result = await sendLeaseAction(httpClient, otherReplica.url, lease, {
          kind: 'complete',
          result: by('another'),
        })
        return result.status === 200
      },
    }))
  }
}
