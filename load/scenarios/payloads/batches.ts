/** Batches of small jobs and of structured data of 1 KB, over HTTP and with BullMQ's addBulk. */
import type { Measure } from '../../bench.ts'
import { compare, type Effort, type Goal, job, type Scenario, type Side } from '../scenario.ts'
import { postInTurn } from './bodies.ts'
import { driveInProcess } from './in-process.ts'
import { createOrder, createOrderSummary, KB } from './orders.ts'

const IN_FLIGHT = 4
const BODIES = 8

interface Batch {
  jobs: number
  isLarge: boolean
}

export const batch: Scenario = {
  name: 'batch',
  shows:
    "POST /jobs/batch, four requests in flight, compared with a Fastify route that calls BullMQ's addBulk (shared), and with addBulk called in process, without HTTP, four calls in flight. Rates count batches; every job has other data.",
  async run(effort) {
    const batches: Batch[] = [
      { jobs: 10, isLarge: false },
      { jobs: 100, isLarge: false },
      { jobs: 500, isLarge: false },
      { jobs: 500, isLarge: true },
    ]
    const rows: Measure[] = []
    const goals: Goal[] = []
    for (const one of effort.isQuick ? batches.slice(-1) : batches) {
      const result = await compareBatches(one, effort)
      rows.push(...result.rows)
      goals.push(...result.goals)
    }
    return { rows, goals }
  },
}

async function compareBatches({ jobs, isLarge }: Batch, effort: Effort) {
  const name = `${jobs} × ${isLarge ? '1 KB' : '100 bytes'}`
  const bodies = Array.from({ length: BODIES }, (_, body) =>
    JSON.stringify({
      jobs: Array.from({ length: jobs }, (_, i) => {
        const number = body * jobs + i
        return { ...job, data: isLarge ? createOrder(number, KB) : createOrderSummary(number) }
      }),
    }),
  )
  const sides: Side[] = [
    { target: 'ours' },
    { target: 'shared' },
    {
      label: 'addBulk',
      target: 'add-bulk',
      drive: (target, load) => driveInProcess(target, load, { jobs, isLarge, callers: IN_FLIGHT }),
    },
  ]
  const load = postInTurn('/jobs/batch', IN_FLIGHT, bodies)
  const { rows, of, ratio } = await compare('batch', sides, [{ name, load, quickRequests: 40 }], effort)
  const ours = rows.find(({ target }) => target === 'ours')!
  ours.more = {
    'Node µs, × shared': ratio('nodeUs', 'ours', 'shared'),
    'Node µs, × addBulk': ratio('nodeUs', 'ours', 'addBulk'),
    'rate, × addBulk': ratio('requestsPerS', 'ours', 'addBulk'),
  }
  const perS = (target: string) => Math.round(of(target).requestsPerS * jobs)
  const goals: Goal[] = []
  // Small batches have few jobs to spread the cost of HTTP over.
  if (jobs >= 500)
    goals.push({
      what: `jobs per second in batches of ${name}: ${perS('ours')} against ${perS('addBulk')} of addBulk in process`,
      measured: ratio('requestsPerS', 'ours', 'addBulk'),
      atLeast: isLarge ? 1.5 : 1.1,
      isRequired: isLarge,
    })
  return { rows, goals }
}
