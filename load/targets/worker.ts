/**
 * Native BullMQ workers in their own process: each job becomes active, reports progress half-way and
 * completes. The times of these changes are sent to the parent at the end; staleness is measured against
 * them.
 */
import { Worker } from 'bullmq'

/** Visible changes of a job by rank: 1 active, 2 half-way, 3 completed. */
const changes: [key: string, rank: number, atMs: number][] = []
const note = (key: string, rank: number) =>
  changes.push([key, rank, performance.timeOrigin + performance.now()])
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

const worker = new Worker(
  'load',
  async (job) => {
    note(job.id!, 1)
    await pause(Number(process.env['JOB_MS']) / 2)
    await job.updateProgress(50)
    note(job.id!, 2)
    await pause(Number(process.env['JOB_MS']) / 2)
    return { done: true }
  },
  {
    connection: { path: process.env['REDIS_SOCKET']!, maxRetriesPerRequest: null },
    concurrency: Number(process.env['CONCURRENCY']),
  },
)
worker.on('completed', (job) => note(job.id!, 3))
worker.on('error', (error) => console.error(error.message))

process.on('message', async () => {
  await worker.close(true)
  process.send!(changes, () => process.exit(0))
})
process.on('disconnect', () => process.exit(0))
await worker.waitUntilReady()
process.send!({ url: '' })
