/** HTTP workers, which take, extend and settle jobs; and native workers that ignore the lock, for control runs. */
import { randomUUID } from 'node:crypto'
import { Job, type Queue, Worker } from 'bullmq'
import type { HttpClient } from './clients.ts'
import type { RedisServer } from './processes.ts'
import type { Testbed } from './testbed.ts'
import { sleep } from './timing.ts'

export interface Lease {
  /** Key of the job in its queue. */
  key: string
  lease: string
  /** `expiresAt` of the lease, ms since 1970. */
  endsAt: number
}

/** The result of one lease: its own status if the response is 200 or 207, otherwise that of the response. */
export interface LeaseResult {
  /** 0: no response. */
  status: number
  code: string | undefined
}

export type LeaseAction =
  | { kind: 'complete'; result: unknown }
  | { kind: 'fail' | 'retry' | 'release' }
  | { kind: 'extend'; leaseMs?: number; progress?: unknown; log?: string }

export interface TakeOptions {
  max?: number
  /** Seconds. */
  wait?: number
  leaseMs: number
}

/** Empty if there is no job or no response. */
export async function take(
  httpClient: HttpClient,
  url: string,
  queue: string,
  options: TakeOptions,
): Promise<Lease[]> {
  const body = JSON.stringify(options)
  const response = await httpClient.ask(`${url}/queues/${queue}/leases`, { body })
  if (response.status !== 200) return []
  const { jobs } = JSON.parse(response.body) as { jobs: { id: string; lease: string; expiresAt: string }[] }
  return jobs.map(({ id, lease, expiresAt }) => ({
    ...{ key: id.slice(queue.length + 1), lease, endsAt: Date.parse(expiresAt) },
  }))
}

/** Settles or extends one lease. */
export async function sendLeaseAction(
  httpClient: HttpClient,
  url: string,
  lease: string,
  { kind, ...details }: LeaseAction,
  timeoutMs = 10_000,
): Promise<LeaseResult> {
  const isExtension = kind === 'extend'
  const item = { lease, ...(isExtension ? {} : { outcome: kind }), ...details }
  const { status, body, lost } = await httpClient.ask(`${url}/leases/${isExtension ? 'extend' : 'settle'}`, {
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

/** A native worker that takes one job at a time and does not look for stalled jobs. */
export function openNativeTaker(
  testbed: Testbed,
  redis: RedisServer,
  queue: string,
): () => Promise<Job | undefined> {
  const connection = { ...redis.place, maxRetriesPerRequest: null }
  const worker = new Worker(queue, null, { connection, autorun: false })
  worker.on('error', () => {})
  testbed.onEnd(() => worker.close(true))
  return async () => {
    const job = await worker.getNextJob(randomUUID(), { block: false })
    if (!job) await sleep(50)
    return job
  }
}

/** Completes a job without its lock: BullMQ checks none for the token 0. False if the job is not active. */
export async function completeUnlocked(queue: Queue, key: string, result: unknown): Promise<boolean> {
  const job = await Job.fromId(queue, key)
  return (
    job?.moveToCompleted(result, '0', false).then(
      () => true,
      () => false,
    ) ?? false
  )
}
