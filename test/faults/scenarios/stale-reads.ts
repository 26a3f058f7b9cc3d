/** C2: native workers, another replica and an operator change jobs while clients read them at both replicas. */
import { type Job, Queue, Worker } from 'bullmq'
import { percentile } from '../checker.ts'
import type { HttpClient } from '../clients.ts'
import type { RedisServer, Service } from '../processes.ts'
import type { Finding, Scale, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

/** Interval between two reads of one reader. */
const READ_EVERY_MS = 5
/** Concurrent jobs, each on its own queue. */
const LANES = 4
/** A change that does not show within this time counts as never shown. */
const LONGEST_MS = 1_500

export const staleReads: Scenario = {
  id: 'C2',
  fault: 'jobs changed by a native worker, another replica, an operator, while read at two replicas',
  run: (testbed, scale) => changeWhileRead(testbed, scale, scale.isQuick ? 5 : 40, wholeLife),
  controls: [
    {
      what: 'a change without a BullMQ event (drain)',
      misses: 'change visible after',
      run: (testbed, scale) => changeWhileRead(testbed, scale, 1, drainedLife),
    },
  ],
}

/** What can change the jobs of one queue. */
interface Lane {
  queue: Queue
  worker: Worker
  /** Enqueues through the second replica. */
  add(jobId: string): Promise<unknown>
}

interface Change {
  /** What a reader sees of it. */
  shows: string
  make(lane: Lane, jobId: string): Promise<unknown>
}

const added: Change = { shows: 'waiting 0 0', make: ({ add }, jobId) => add(jobId) }
const take = ({ worker }: Lane, jobId: string) => worker.getNextJob(jobId, { block: false })
const jobOf = async ({ queue }: Lane, jobId: string): Promise<Job> => (await queue.getJob(jobId))!

/** Each view occurs once in a job's life, which distinguishes steps back from steps forward. */
const wholeLife: Change[] = [
  added,
  { shows: 'active 0 0', make: take },
  { shows: 'active 50 0', make: async (lane, id) => (await jobOf(lane, id)).updateProgress(50) },
  {
    shows: 'failed 50 1',
    make: async (lane, id) => (await jobOf(lane, id)).moveToFailed(new Error('no'), id, false),
  },
  { shows: 'waiting 50 1', make: async (lane, id) => (await jobOf(lane, id)).retry('failed') },
  { shows: 'active 50 1', make: take },
  {
    shows: 'completed 50 2',
    make: async (lane, id) => (await jobOf(lane, id)).moveToCompleted(1, id, false),
  },
  { shows: 'none', make: async (lane, id) => (await jobOf(lane, id)).remove() },
]

const drainedLife: Change[] = [added, { shows: 'none', make: ({ queue }) => queue.drain() }]

interface Seen {
  /** From each change to the last read, sent after it, that did not show it, ms. */
  staleMs: number[]
  backward: number
  reads: number
}

async function changeWhileRead(
  testbed: Testbed,
  scale: Scale,
  jobsALane: number,
  life: Change[],
): Promise<Finding> {
  const redis = await testbed.redis()
  const replicas = [await testbed.service(redis.url), await testbed.service(redis.url)]
  const httpClient = testbed.httpClient()
  const seen: Seen = { staleMs: [], backward: 0, reads: 0 }
  await Promise.all(
    Array.from({ length: life === wholeLife ? LANES : 1 }, async (_, index) => {
      const lane = openLane(testbed, redis, replicas[1]!, httpClient, `changes-${index}`)
      for (let i = 0; i < jobsALane; i++) {
        await runLife({ lane, jobId: `job-${i}`, replicas, httpClient, life, seen })
        scale.progress(`${i + 1} of ${jobsALane} jobs a queue`)
      }
    }),
  )
  return {
    checks: [
      {
        what: `change visible after, ${scale.isQuick ? 'p90' : 'most'}, ms`,
        measured: scale.isQuick ? percentile(seen.staleMs, 0.9) : Math.max(...seen.staleMs),
        atMost: 100,
      },
      { what: 'steps back', measured: seen.backward, atMost: 0 },
    ],
    counts: {
      changes: seen.staleMs.length / replicas.length,
      reads: seen.reads,
      'ms until seen (p50)': Math.round(percentile(seen.staleMs, 0.5)),
      'ms until seen (p99)': Math.round(percentile(seen.staleMs, 0.99)),
    },
  }
}

function openLane(
  testbed: Testbed,
  redis: RedisServer,
  replica: Service,
  httpClient: HttpClient,
  name: string,
): Lane {
  const queue = new Queue(name, { connection: redis.client })
  const worker = new Worker(name, null, {
    connection: { ...redis.place, maxRetriesPerRequest: null },
    autorun: false,
  })
  worker.on('error', () => {})
  testbed.onEnd(() => worker.close(true))
  const add = (jobId: string) =>
    httpClient.ask(`${replica.url}/jobs`, {
      body: JSON.stringify({ queue: name, name: 'n', opts: { jobId } }),
    })
  return { queue, worker, add }
}

interface Life {
  lane: Lane
  jobId: string
  replicas: Service[]
  httpClient: HttpClient
  life: Change[]
  seen: Seen
}

/** Runs one job from creation to removal, while a reader at each replica polls it. */
async function runLife({ lane, jobId, replicas, httpClient, life, seen }: Life): Promise<void> {
  const changedAt: number[] = []
  const readers = replicas.map(({ url }) =>
    read({ httpClient, url: `${url}/jobs/${lane.queue.name}:${jobId}`, life }),
  )
  // Lets the replicas cache that the job does not exist.
  await sleep(4 * READ_EVERY_MS)
  for (const [step, change] of life.entries()) {
    await change.make(lane, jobId)
    changedAt[step] = performance.now()
    const isSeen = () => readers.every((reader) => reader.step() >= step)
    await until(change.shows, isSeen, LONGEST_MS, 2).catch(() => {})
  }
  for (const reader of readers) {
    const { views, backward } = await reader.stop()
    seen.reads += views.length
    seen.backward += backward
    for (const [step, at] of changedAt.entries()) {
      const stale = views.filter((view) => view.sentAt > at && view.step < step)
      seen.staleMs.push(Math.max(0, ...stale.map(({ sentAt }) => sentAt - at)))
    }
  }
}

function read({ httpClient, url, life }: { httpClient: HttpClient; url: string; life: Change[] }) {
  const views: { sentAt: number; step: number }[] = []
  let step = -1
  let backward = 0
  let isStopped = false
  const reading = (async () => {
    for (; !isStopped; await sleep(READ_EVERY_MS)) {
      const sentAt = performance.now()
      const { status, body } = await httpClient.ask(url)
      const { state, progress, attemptsMade } = status === 200 ? JSON.parse(body) : { state: 'none' }
      const shown = status === 200 ? `${state} ${progress} ${attemptsMade}` : state
      // The job does not exist before its creation and after its removal.
      const now = shown === 'none' && step < 0 ? -1 : life.findIndex(({ shows }) => shows === shown)
      if (now < step) backward++
      step = Math.max(step, now)
      views.push({ sentAt, step: now })
    }
  })()
  return {
    step: () => step,
    async stop() {
      isStopped = true
      await reading
      return { views, backward }
    },
  }
}
