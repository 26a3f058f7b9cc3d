/**
 * Workers. Over HTTP, as clients of the service are: they take jobs, keep them, and say what became of them. And native ones
 * that go about it as nobody should, for control runs.
 */
import { randomUUID } from 'node:crypto'
import { Job, type Queue, Worker } from 'bullmq'
import type { Browser } from './clients.ts'
import type { RedisServer } from './processes.ts'
import type { Stage } from './stage.ts'
import { sleep } from './wait.ts'

export interface Lease {
  /** Of the job, in its queue. */
  key: string
  lease: string
  /** When it runs out, as it was told: ms since 1970. */
  endsAt: number
}

/** Of one lease: its own status where the answer as a whole is 200 or 207. */
export interface Told {
  /** 0: there was no answer. */
  status: number
  code: string | undefined
}

export type Deed =
  | { kind: 'complete'; result: unknown }
  | { kind: 'fail' | 'retry' | 'release' }
  | { kind: 'extend'; leaseMs?: number; progress?: unknown; log?: string }

export interface TakeOptions {
  max?: number
  /** Seconds. */
  wait?: number
  leaseMs: number
}

/** None where there is none, or no answer. */
export async function take(
  browser: Browser,
  url: string,
  queue: string,
  options: TakeOptions,
): Promise<Lease[]> {
  const body = JSON.stringify(options)
  const answer = await browser.ask(`${url}/queues/${queue}/leases`, { body })
  if (answer.status !== 200) return []
  const { jobs } = JSON.parse(answer.body) as { jobs: { id: string; lease: string; expiresAt: string }[] }
  return jobs.map(({ id, lease, expiresAt }) => ({
    ...{ key: id.slice(queue.length + 1), lease, endsAt: Date.parse(expiresAt) },
  }))
}

/** Settles or extends one lease. */
export async function act(
  browser: Browser,
  url: string,
  lease: string,
  { kind, ...details }: Deed,
  timeoutMs = 10_000,
): Promise<Told> {
  const isExtension = kind === 'extend'
  const item = { lease, ...(isExtension ? {} : { outcome: kind }), ...details }
  const { status, body, lost } = await browser.ask(`${url}/leases/${isExtension ? 'extend' : 'settle'}`, {
    body: JSON.stringify({ items: [item] }),
    timeoutMs,
  })
  if (status === 0) return { status, code: lost }
  const { code, results } = JSON.parse(body) as {
    code?: string
    results?: { status: number; error?: { code: string } }[]
  }
  return results ? { status: results[0]!.status, code: results[0]!.error?.code } : { status, code }
}

/** A native worker that asks for one job after the other, and leaves it to others to look for those that have stalled. */
export function openAsker(stage: Stage, redis: RedisServer, queue: string): () => Promise<Job | undefined> {
  const connection = { ...redis.place, maxRetriesPerRequest: null }
  const worker = new Worker(queue, null, { connection, autorun: false })
  worker.on('error', () => {})
  stage.onEnd(() => worker.close(true))
  return async () => {
    const job = await worker.getNextJob(randomUUID(), { block: false })
    if (!job) await sleep(50)
    return job
  }
}

/** Whoever holds it: BullMQ asks for no lock where the token is 0. False when it is not active. */
export async function completeUnlocked(queue: Queue, key: string, result: unknown): Promise<boolean> {
  const job = await Job.fromId(queue, key)
  return (
    job?.moveToCompleted(result, '0', false).then(
      () => true,
      () => false,
    ) ?? false
  )
}
