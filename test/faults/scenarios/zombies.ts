/**
 * D5: zombies, workers that keep their jobs beyond their leases. Each job goes to another worker, and its zombie must not
 * change it any more, even if the replica that granted the lease is killed, or processes a timely request too late.
 */
import { Queue } from 'bullmq'
import { type Fate, type Life, outliveLeases, type Round } from '../late-workers.ts'
import type { Check, Finding, Scale, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'

/** Deadline of redelivery, from the end of the lease. */
const REDELIVERED_MS = 5_000
const SAMPLES = 3

export const zombies: Scenario = {
  id: 'D5',
  fault: 'a lease expires while its worker still runs; its replica is left alone, stopped or killed',
  run: (testbed, scale) =>
    runZombies(testbed, scale, scale.isQuick ? 30 : 1_000, ['left alone', 'stopped', 'killed']),
  controls: [
    {
      what: 'zombies that complete their jobs in Redis without the lock',
      misses: 'stale completions',
      run: (testbed, scale) => runZombies(testbed, scale, 20, ['left alone'], { isLockless: true }),
    },
    {
      what: 'a killed replica, and no takes at the other, so that no replica recovers expired leases',
      misses: 'redelivered after the lease expired',
      run: (testbed, scale) => runZombies(testbed, scale, 20, ['killed'], { isUnwatched: true }),
    },
  ],
}

/** `killed` must be the last fate, because a killed replica stays down. */
async function runZombies(
  testbed: Testbed,
  scale: Scale,
  count: number,
  fates: Fate[],
  control: Pick<Round, 'isLockless' | 'isUnwatched'> = {},
): Promise<Finding> {
  const redis = await testbed.redis()
  const env = { MAX_STALLED_COUNT: '5' }
  const [lateReplica, otherReplica] = [
    await testbed.service(redis.url, env),
    await testbed.service(redis.url, env),
  ]
  const lives: Judged[] = []
  for (const fate of fates) {
    scale.progress(`${count} zombies, their replica is ${fate}`)
    const queue = new Queue(fate.replace(' ', '-'), { connection: redis.client })
    const ofRound = await outliveLeases({
      ...{
        testbed,
        redis,
        httpClient: testbed.httpClient(),
        queue,
        lateReplica,
        otherReplica,
        fate,
        count,
        ...control,
      },
      leaseMs: count > 100 ? 3_000 : 1_000,
      patienceMs: REDELIVERED_MS + 1_000,
    })
    for (const life of ofRound) lives.push({ ...life, found: await readJob(queue, life.key) })
  }
  return {
    checks: judge(lives),
    counts: {
      zombies: lives.flatMap(({ leases }) => leases).length,
      'late settles and extends': lives.flatMap(({ late }) => late).length,
      'SIGKILL of the service': fates.includes('killed') ? 1 : 0,
      'SIGSTOP of the service': fates.includes('stopped') ? 1 : 0,
    },
  }
}

interface Judged extends Life {
  /** The job in Redis at the end. */
  found: { state: string; by: string | undefined; attemptsMade: number; progress: unknown; logs: number }
}

async function readJob(queue: Queue, key: string): Promise<Judged['found']> {
  const [job, state, { count: logs }] = await Promise.all([
    queue.getJob(key),
    queue.getJobState(key),
    queue.getJobLogs(key, 0, 0),
  ])
  const { returnvalue, attemptsMade = 0, progress } = job ?? {}
  return { state, by: (returnvalue as { by: string } | null)?.by, attemptsMade, progress, logs }
}

function judge(lives: Judged[]): Check[] {
  const none = (what: string, isOne: (life: Judged) => boolean): Check => {
    const found = lives.filter(isOne)
    return {
      what,
      measured: found.length,
      atMost: 0,
      samples: found.slice(0, SAMPLES).map((life) => JSON.stringify(life)),
    }
  }
  const isRefused = ({ status, code }: Life['late'][number]) => status === 409 && code === 'LEASE_LOST'
  const lateness = lives.map(({ givenAt, leases, lockEndsAt }) => {
    return (givenAt[0] ?? Date.now()) - (leases.at(-1)?.endsAt ?? lockEndsAt)
  })
  return [
    none('stale completions', ({ late, found }) => {
      const isTold = late.some(({ kind, status }) => kind === 'complete' && status === 200)
      return isTold || (found.by !== undefined && found.by !== 'another')
    }),
    none('zombies with another response than 409 LEASE_LOST', ({ late }) => !late.every(isRefused)),
    none('changed by a zombie', ({ found: { attemptsMade, progress, logs } }) => {
      return attemptsMade !== 1 || progress !== 0 || logs !== 0
    }),
    {
      what: 'redelivered after the lease expired, most, ms',
      measured: Math.max(...lateness),
      atMost: REDELIVERED_MS,
    },
    none('redelivered more than once', ({ givenAt }) => givenAt.length > 1),
    none('not completed exactly once', ({ completions }) => completions !== 1),
    none('failed', ({ found }) => found.state === 'failed'),
    none('lost', ({ found }) => found.state !== 'completed' && found.state !== 'failed'),
  ]
}
