/**
 * Workers who hold a job each for longer than their lease, and speak when the job is another's: just after the lease ran out,
 * while the other holds it, and after that one is done. What they and the others were told, and when, is kept.
 */
import type { Queue } from 'bullmq'
import type { Browser } from './clients.ts'
import type { RedisServer, Service } from './processes.ts'
import type { Stage } from './stage.ts'
import { sleep, until } from './wait.ts'
import { act, completeUnlocked, type Deed, type Lease, openAsker, type Told, take } from './workers.ts'

/** What befalls the replica of those who are late: nothing, a stop until all is given to others, a kill while they take. */
export type Fate = 'left alone' | 'stopped' | 'killed'

export interface Round {
  stage: Stage
  redis: RedisServer
  browser: Browser
  queue: Queue
  /** Of those who are late. */
  theirs: Service
  /** Of the others. */
  ours: Service
  fate: Fate
  /** How many, and how many jobs. */
  count: number
  leaseMs: number
  /** How long to wait for all to be given to others, from the end of the leases. */
  patienceMs: number
  /** The late ones complete their jobs in Redis, and ask for no lock. */
  isLockless?: boolean
  /** The others ask Redis for jobs, so that no replica is asked for any. */
  isUnwatched?: boolean
}

/** What a job went through. */
export interface Life {
  key: string
  /** Of those who are late; none where the answer was lost, or nobody came to take it. */
  leases: Lease[]
  /** Whoever has it; ms since 1970. A moment after the end of which its holder was told. */
  lockEndsAt: number
  /** To others. */
  givenAt: number[]
  /** By others. */
  completions: number
  late: LateWord[]
}

export interface LateWord extends Told {
  kind: Deed['kind']
}

/** A job in the hands of one who is in time. */
interface Holding {
  key: string
  complete(): Promise<boolean>
}

/** Of those who are in time. */
const LONG_LEASE_MS = 60_000
const TAKERS = 5
const MOST_AT_ONCE = 100
const PAST_END_MS = 50

const by = (who: string) => ({ by: who })
const COMPLETE: Deed = { kind: 'complete', result: by('late') }
const OTHERS: Deed[] = [
  { kind: 'fail' },
  { kind: 'retry' },
  { kind: 'release' },
  { kind: 'extend', leaseMs: 600_000, progress: 99, log: 'late' },
]

export async function outliveLeases(round: Round): Promise<Life[]> {
  const { browser, queue, theirs, fate, count, leaseMs, patienceMs } = round
  const lives: Life[] = Array.from({ length: count }, (_, i) => ({
    ...{ key: `job-${i}`, leases: [], lockEndsAt: 0, givenAt: [], completions: 0, late: [] },
  }))
  const lifeOf = new Map(lives.map((life) => [life.key, life]))
  await queue.addBulk(lives.map(({ key }) => ({ name: 'n', data: {}, opts: { jobId: key } })))

  let answers = 0
  let killing: Promise<void> | undefined
  const taking = lives.map(async () => {
    const [lease] = await take(browser, theirs.url, queue.name, { leaseMs })
    if (lease) lifeOf.get(lease.key)!.leases.push(lease)
    // While the others wait for theirs: some of those answers are lost, and nobody knows of these leases.
    if (fate === 'killed' && ++answers > count / 2) killing ??= theirs.kill()
  })
  await Promise.all(taking)
  await killing
  if (fate === 'stopped') theirs.freeze()
  await readLocks(round, lives)
  const latest = Math.max(...lives.map(({ lockEndsAt }) => lockEndsAt))

  const isOver = () => Date.now() > latest + patienceMs || lives.every(({ givenAt }) => givenAt.length > 0)
  // Who asks a replica that is stopped has spoken in time; it hands that on when all has long been given to others.
  const speaking = lives.map(async (life) => {
    if (fate !== 'stopped') await sleep(life.lockEndsAt + PAST_END_MS - Date.now())
    await speakLate(round, life, COMPLETE)
  })
  const mayGoOn = fate === 'stopped' ? goOn() : Promise.resolve()
  async function goOn(): Promise<void> {
    await until('all is given to others', isOver, 60_000)
    theirs.thaw()
    await Promise.all(speaking)
  }

  async function hold({ key, complete }: Holding): Promise<void> {
    const life = lifeOf.get(key)!
    life.givenAt.push(Date.now())
    await mayGoOn
    await speakLate(round, life, COMPLETE)
    await speakLate(round, life, OTHERS[lives.indexOf(life) % OTHERS.length]!)
    if (await complete()) life.completions++
    await speakLate(round, life, COMPLETE)
  }
  const held: Promise<void>[] = []
  const takeSome = openTaker(round)
  const takers = Array.from({ length: TAKERS }, async () => {
    while (!isOver()) for (const holding of await takeSome()) held.push(hold(holding))
  })
  await Promise.all(takers)
  await Promise.all([...speaking, ...held])
  return lives
}

/** From Redis, as some answers were lost; now for a job that nobody has. */
async function readLocks({ redis, queue }: Round, lives: Life[]): Promise<void> {
  const pipeline = redis.client.pipeline()
  for (const { key } of lives) pipeline.pttl(queue.toKey(`${key}:lock`))
  const ttls = (await pipeline.exec()) ?? []
  for (const [index, life] of lives.entries())
    life.lockEndsAt = Date.now() + Math.max(0, Number(ttls[index]![1]))
}

async function speakLate(round: Round, life: Life, deed: Deed): Promise<void> {
  const { browser, queue, theirs, ours, fate, isLockless } = round
  for (const { lease, key } of life.leases) {
    const told = isLockless
      ? { status: (await completeUnlocked(queue, key, by('late'))) ? 200 : 409, code: 'LEASE_LOST' }
      : await act(browser, (fate === 'killed' ? ours : theirs).url, lease, deed, 60_000)
    life.late.push({ kind: deed.kind, ...told })
  }
}

/** What gives jobs to those who are in time. */
function openTaker({ stage, redis, browser, queue, ours, isUnwatched }: Round): () => Promise<Holding[]> {
  if (isUnwatched) {
    const ask = openAsker(stage, redis, queue.name)
    return async () => {
      const job = await ask()
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
    const taken = await take(browser, ours.url, queue.name, options)
    return taken.map(({ key, lease }) => ({
      key,
      async complete() {
        const told = await act(browser, ours.url, lease, { kind: 'complete', result: by('another') })
        return told.status === 200
      },
    }))
  }
}
