/**
 * The workers of the demo: plain BullMQ workers on the same Redis, in a process that does not use Sluice.
 * Each kind of job does something small with its data; invalid data makes it fail, as in production.
 */
import { createHash } from 'node:crypto'
import { type Job, UnrecoverableError, Worker } from 'bullmq'

const [socket = '', prefix = '', ...queues] = process.argv.slice(2)
const CONCURRENCY = 8

/** Card numbers that payment providers use to test a decline and a temporary failure. */
const DECLINED = '4000000000000002'
const FAILS_AT_FIRST = '4000000000000119'

type Processor = (job: Job) => Promise<unknown>

const processors: Record<string, Processor> = {
  'welcome-email': async ({ data }: Job<{ to: string; name: string; locale: string }>) => {
    if (!data.to.includes('@')) throw new Error(`${data.to} is not an email address`)
    const text = `To: ${data.to}\nContent-Language: ${data.locale}\n\nWelcome, ${data.name}!\n`
    return { messageId: sha256(text).slice(0, 24), bytes: Buffer.byteLength(text) }
  },

  'resize-image': async (job: Job<{ image: string; width: number; height: number; widths: number[] }>) => {
    const { image, width, height, widths } = job.data
    if (width < 1 || height < 1) throw new Error(`${image} is empty: ${width} × ${height}`)
    const thumbnails: { width: number; height: number; hash: string }[] = []
    for (const target of widths) {
      const scaled = { width: target, height: Math.round((height * target) / width) }
      // There is no image; this hashes as many bytes as its thumbnail would have.
      const hash = sha256(Buffer.alloc(scaled.width * scaled.height * 3, image)).slice(0, 16)
      thumbnails.push({ ...scaled, hash })
      await job.updateProgress(Math.round((100 * thumbnails.length) / widths.length))
    }
    return { thumbnails }
  },

  'charge-card': async (
    job: Job<{ card: string; currency: string; items: { cents: number; quantity: number }[] }>,
  ) => {
    const { card, currency, items } = job.data
    if (card === DECLINED) throw new UnrecoverableError('The card was declined')
    if (card === FAILS_AT_FIRST && job.attemptsMade === 0) throw new Error('The bank did not respond')
    return { currency, chargedCents: sum(items.map(({ cents, quantity }) => cents * quantity)) }
  },

  'count-stock': async ({ data }: Job<{ sku: string; counts: number[] }>) => {
    return { sku: data.sku, total: sum(data.counts), lowest: Math.min(...data.counts) }
  },

  'build-report': async ({ data }: Job<{ revenueCents: number[] }>) => {
    const sorted = data.revenueCents.toSorted((a, b) => a - b)
    return { totalCents: sum(sorted), medianCents: sorted[sorted.length >> 1] }
  },
}

const workers = queues.map((queue) => {
  const worker = new Worker(
    queue,
    (job: Job) => {
      const processor = processors[job.name]
      if (!processor) throw new UnrecoverableError(`There is no processor for jobs named ${job.name}`)
      return processor(job)
    },
    { connection: { path: socket }, prefix, concurrency: CONCURRENCY },
  )
  // An 'error' event without a listener would end the process; BullMQ reconnects by itself.
  worker.on('error', (error) => console.error(`worker of ${queue}: ${error.message}`))
  return worker
})

/** BullMQ's `close` may be called twice; it returns the same promise. */
async function close(): Promise<void> {
  await Promise.allSettled(workers.map((worker) => worker.close()))
  process.exit()
}
process.on('SIGTERM', close)
process.on('SIGINT', close)
// The demo has ended, so nothing else would stop this process.
process.on('disconnect', close)

await Promise.all(workers.map((worker) => worker.waitUntilReady()))
process.send?.('ready')

function sum(numbers: number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

function sha256(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}
