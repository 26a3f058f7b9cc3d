/**
 * D5: zombies. Workers hold their jobs for longer than their leases; each job goes to another, and nothing that its zombie says
 * may change it any more. Also when the replica that gave the leases is killed, or hands on too late what was said in time.
 */
import { Queue } from 'bullmq'
import { type Fate, type Life, outliveLeases, type Round } from '../late-workers.ts'
import type { Check, Finding, Scale, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

/** From the end of the lease. */
const REDELIVERED_MS = 5_000
const SAMPLES = 3

export const zombies: Scenario = {
  id: 'D5',
  fault: 'a lease expires while its worker still runs; its replica is left alone, stopped or killed',
  run: (stage, scale) => raise(stage, scale, scale.isQuick ? 30 : 1_000, ['left alone', 'stopped', 'killed']),
  controls: [
    {
      what: 'zombies that complete their jobs in Redis, and ask for no lock',
      misses: 'stale completions',
      run: (stage, scale) => raise(stage, scale, 20, ['left alone'], { isLockless: true }),
    },
    {
      what: 'a replica killed, and the other asked for no job, so that nobody looks for leases that ran out',
      misses: 'given to another after the lease ran out',
      run: (stage, scale) => raise(stage, scale, 20, ['killed'], { isUnwatched: true }),
    },
  ],
}

/** A replica that was killed stays so: nothing comes after that. */
async function raise(
  stage: Stage,
  scale: Scale,
  count: number,
  fates: Fate[],
  lacking: Pick<Round, 'isLockless' | 'isUnwatched'> = {},
): Promise<Finding> {
  const redis = await stage.redis()
  const env = { MAX_STALLED_COUNT: '5' }
  const [theirs, ours] = [await stage.service(redis.url, env), await stage.service(redis.url, env)]
  const lives: Judged[] = []
  for (const fate of fates) {
    scale.progress(`${count} zombies, their replica is ${fate}`)
    const queue = new Queue(fate.replace(' ', '-'), { connection: redis.client })
    const ofRound = await outliveLeases({
      ...{ stage, redis, browser: stage.browser(), queue, theirs, ours, fate, count, ...lacking },
      leaseMs: count > 100 ? 3_000 : 1_000,
      patienceMs: REDELIVERED_MS + 1_000,
    })
    for (const life of ofRound) lives.push({ ...life, found: await look(queue, life.key) })
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
  /** What Redis holds in the end. */
  found: { state: string; by: string | undefined; attemptsMade: number; progress: unknown; logs: number }
}

async function look(queue: Queue, key: string): Promise<Judged['found']> {
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
  console.error(Math.max(...lives.map((l) => l.lockEndsAt - (l.leases.at(-1)?.endsAt ?? Infinity))))
  const isRefused = ({ status, code }: Life['late'][number]) => status === 409 && code === 'LEASE_LOST'
  const lateness = lives.map(({ givenAt, leases, lockEndsAt }) => {
    return (givenAt[0] ?? Date.now()) - (leases.at(-1)?.endsAt ?? lockEndsAt)
  })
  return [
    none('stale completions', ({ late, found }) => {
      const isTold = late.some(({ kind, status }) => kind === 'complete' && status === 200)
      return isTold || (found.by !== undefined && found.by !== 'another')
    }),
    none('zombies answered but 409 LEASE_LOST', ({ late }) => !late.every(isRefused)),
    none('changed by a zombie', ({ found: { attemptsMade, progress, logs } }) => {
      return attemptsMade !== 1 || progress !== 0 || logs !== 0
    }),
    {
      what: 'given to another after the lease ran out, the last, ms',
      measured: Math.max(...lateness),
      atMost: REDELIVERED_MS,
    },
    none('held by two others', ({ givenAt }) => givenAt.length > 1),
    none('completed but once', ({ completions }) => completions !== 1),
    none('failed', ({ found }) => found.state === 'failed'),
    none('lost', ({ found }) => found.state !== 'completed' && found.state !== 'failed'),
  ]
}
