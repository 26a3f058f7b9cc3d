/**
 * X7: the wall clock of the service is set an hour forward and back while deliveries fail, leases are held and jobs are
 * delayed; and a replica whose clock is ten minutes ahead, beside a correct one.
 */
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Queue } from 'bullmq'
import { attackBeside, HEAP, openTarget, type Target, type TargetOptions, withChecks } from '../attacks.ts'
import { listen, subscribe } from '../endpoints.ts'
import { closedLoop } from '../load.ts'
import { type Check, controlScale, type Finding, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const HOUR_MS = 3_600_000
const AHEAD_MS = 600_000
const STEPS = [HOUR_MS, 0, -HOUR_MS, 0]
const QUICK_STEPS = [HOUR_MS, 0]
const DELAY_MS = 1_000
/** Not due before the end. */
const LONG_DELAY_MS = 300_000
/** Allowed lateness of a delayed job, ms. */
const LATE_MS = 1_000
const QUICK_LATE_MS = 3_000
/** The endpoint recovers at the step; a failing endpoint is tried again after pauses of a second or more. */
const DELIVERED_MS = 8_000
const CONCURRENCY = 3
const TTL_MS = 1_000

interface Clocks {
  /** Offsets that the clock of the service gets, one after the other. */
  steps?: number[]
  /** Instead, another replica with this offset, which gets all takes. */
  aheadMs?: number
}

export const clockSteps: Scenario = {
  id: 'X7 steps',
  fault: 'the clock of the service steps by an hour while deliveries fail, leases are held, jobs delayed',
  run: (testbed, scale) => shiftClocks(testbed, scale, { steps: scale.isQuick ? QUICK_STEPS : STEPS }, {}),
  controls: [
    {
      what: 'a service that passes its own time to BullMQ',
      misses: 'delayed jobs taken early',
      run: (testbed, scale) =>
        shiftClocks(testbed, controlScale(scale), { steps: [HOUR_MS] }, { isBoundless: true }),
    },
  ],
}

export const clockAhead: Scenario = {
  id: 'X7 ahead',
  fault: 'the clock of a replica is ten minutes ahead of that of another',
  run: (testbed, scale) => shiftClocks(testbed, scale, { aheadMs: AHEAD_MS }, {}),
  controls: [
    {
      what: 'a service that passes its own time to BullMQ',
      misses: 'delayed jobs taken early',
      run: (testbed, scale) =>
        shiftClocks(testbed, controlScale(scale), { steps: [AHEAD_MS] }, { isBoundless: true }),
    },
  ],
}

async function shiftClocks(
  testbed: Testbed,
  scale: Scale,
  { steps = [0], aheadMs }: Clocks,
  options: TargetOptions,
): Promise<Finding> {
  const [clock, otherClock] = [openClock(testbed, 'clock'), openClock(testbed, 'other-clock', aheadMs)]
  const env = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', CACHE_TTL_SHORT: `${TTL_MS}` }
  const target = await openTarget(testbed, { ...options, env: { ...env, ...clock.env } })
  const { redis, service, keysFile, ordinary: headers } = target
  const endpoint = await startEndpoint(testbed)
  if (!options.isBoundless) {
    const subscription = { url: endpoint.url, timeoutMs: 2_000, concurrency: CONCURRENCY }
    await subscribe(testbed.httpClient(), service, 'hooked', subscription, headers)
  }
  // Reads the subscription when it starts.
  const replica =
    aheadMs === undefined
      ? service
      : await testbed.service(redis.url, { ...env, ...otherClock.env, API_KEYS_FILE: keysFile })
  const jobs = createJobs(testbed, target, replica.url)
  let undelivered = 0
  const stale: string[] = []
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const deadline = performance.now() + seconds * 1_000
    jobs.takeDelayed()
    for (let round = 0; round < steps.length || performance.now() < deadline; round++) {
      await jobs.addDelayed(DELAY_MS, LONG_DELAY_MS)
      if (!options.isBoundless) {
        endpoint.isFailing = aheadMs === undefined
        await jobs.holdLeases()
        await jobs.addHooked(10)
        await jobs.read('cached', 'before')
        await sleep(700)
      }
      clock.set(steps[round % steps.length]!)
      await sleep(50)
      endpoint.isFailing = false
      await jobs.addDelayed(DELAY_MS, LONG_DELAY_MS)
      if (options.isBoundless) {
        await sleep(DELAY_MS)
        continue
      }
      await jobs.addHooked(5)
      if (!(await jobs.read('cached', 'after'))) stale.push(`after step ${round}`)
      const isDelivered = async () => (await jobs.countHooked()) === 0
      await until('all is delivered', isDelivered, DELIVERED_MS, 100).catch(() => {})
      undelivered += await jobs.countHooked()
      await until('delayed jobs are taken', () => jobs.countDue() === 0, DELIVERED_MS, 100).catch(() => {})
    }
    await jobs.settle()
  })
  const checks: Check[] = [
    ...jobs.judge(scale),
    { what: 'jobs not delivered after the endpoint recovered', measured: undelivered, atMost: 0 },
    { what: 'concurrent deliveries, most', measured: endpoint.most(), atMost: CONCURRENCY },
    { what: 'changes not visible after CACHE_TTL_SHORT', measured: stale.length, atMost: 0, samples: stale },
  ]
  return withChecks(finding, checks, { ...jobs.counts(), steps: steps.length, deliveries: endpoint.count() })
}

function openClock(testbed: Testbed, name: string, offsetMs = 0) {
  const file = join(testbed.dir, name)
  const set = (ms: number) => writeFileSync(file, `${ms}`)
  set(offsetMs)
  const preload = pathToFileURL('test/faults/stepped-clock.mjs').href
  return { set, env: { CLOCK_FILE: file, NODE_OPTIONS: `${HEAP} --import ${preload}` } }
}

/** `replicaUrl`: where jobs are taken; everything else happens at the target. */
function createJobs(testbed: Testbed, { redis, service, ordinary: headers }: Target, replicaUrl: string) {
  const httpClient = testbed.httpClient()
  const leases: { id: string; lease: string }[] = []
  const held = new Set<string>()
  /** When each delayed job is due, by id. */
  const due = new Map<string, number>()
  const takenAt = new Map<string, number>()
  const stolen: string[] = []
  let refused: string[] = []
  const ask = (url: string, path: string, body: object) =>
    httpClient.ask(url + path, { headers, body: JSON.stringify(body) })
  const add = async (queue: string, opts: object = {}) => {
    const { status, body } = await ask(service.url, '/jobs', { queue, name: 'n', opts })
    if (status !== 201) throw new Error(`not added to ${queue}: ${status} ${body}`)
    return (JSON.parse(body) as { id: string }).id
  }
  const take = async (url: string, queue: string, options: object) => {
    const { status, body } = await ask(url, `/queues/${queue}/leases`, options)
    return status === 200 ? (JSON.parse(body) as { jobs: { id: string; lease: string }[] }).jobs : []
  }
  const isDue = (id: string) => due.get(id)! < performance.now() + LONG_DELAY_MS / 2
  const cached = new Queue('cached', { connection: redis.client })

  return {
    async addDelayed(...delays: number[]): Promise<void> {
      for (const delay of delays) {
        const at = performance.now()
        due.set(await add('delayed', { delay }), at + delay)
      }
    },
    takeDelayed(): void {
      closedLoop(testbed, 2, async () => {
        const [job] = await take(replicaUrl, 'delayed', { wait: 1, leaseMs: 600_000 })
        if (job) takenAt.set(job.id, performance.now())
        else await sleep(20)
      })
      closedLoop(testbed, 1, async () => {
        const [job] = held.size > 0 ? await take(replicaUrl, 'held', { leaseMs: 600_000 }) : []
        if (job && held.has(job.id)) stolen.push(job.id)
        await sleep(50)
      })
    },
    async holdLeases(): Promise<void> {
      for (let i = 0; i < 3; i++) {
        const id = await add('held')
        const [job] = await take(service.url, 'held', { wait: 1, leaseMs: 240_000 })
        // The other takers may have been first.
        if (job?.id !== id) continue
        held.add(id)
        leases.push(job)
      }
    },
    async settle(): Promise<void> {
      const items = leases.map(({ lease }) => ({ lease, outcome: 'complete' }))
      if (items.length === 0) return
      const { status, body } = await ask(service.url, '/leases/settle', { items: items.slice(0, 100) })
      if (status !== 200) refused = [`${status} ${body}`]
    },
    async addHooked(count: number): Promise<void> {
      for (let i = 0; i < count; i++)
        await add('hooked', { attempts: 20, backoff: { type: 'fixed', delay: 100 } })
    },
    /** Unfinished jobs of the webhook. */
    async countHooked(): Promise<number> {
      const counts = await new Queue('hooked', { connection: redis.client }).getJobCounts()
      return Object.entries(counts).reduce((sum, [state, n]) => sum + (state === 'completed' ? 0 : n), 0)
    },
    /** Changes the data natively, without an event, and resolves with whether a read shows it in time. */
    async read(key: string, value: string): Promise<boolean> {
      const text = `${value}-${performance.now()}`
      const job = await cached.getJob(key)
      await (job ? job.updateData(text) : cached.add('n', text, { jobId: key }))
      const isShown = async () => {
        const path = `/jobs/cached:${key}?include=data`
        const { body } = await httpClient.ask(service.url + path, { headers })
        return body.includes(text)
      }
      return until('the change is visible', isShown, TTL_MS + 2_000, 50).then(
        () => true,
        () => false,
      )
    },
    countDue: () => [...due.keys()].filter((id) => isDue(id) && !takenAt.has(id)).length,
    judge({ isQuick }: Scale): Check[] {
      const taken = [...takenAt].filter(([id]) => due.has(id))
      // A clock of a computer and the timestamps of jobs have whole milliseconds.
      const early = taken.filter(([id, at]) => at < due.get(id)! - 5)
      const lateMs = taken.map(([id, at]) => at - due.get(id)!)
      const overdue = [...due.keys()].filter((id) => isDue(id) && !takenAt.has(id))
      return [
        { what: 'delayed jobs taken early', measured: early.length, atMost: 0, samples: early.map(String) },
        { what: 'delayed jobs not taken', measured: overdue.length, atMost: 0 },
        {
          what: 'delayed jobs taken late, most, ms',
          measured: Math.max(0, ...lateMs),
          atMost: isQuick ? QUICK_LATE_MS : LATE_MS,
        },
        { what: 'leased jobs given to another', measured: stolen.length, atMost: 0, samples: stolen },
        { what: 'leases that cannot be settled', measured: refused.length, atMost: 0, samples: refused },
      ]
    },
    counts: () => ({ 'delayed jobs': due.size, 'leases held': leases.length }),
  }
}

async function startEndpoint(testbed: Testbed) {
  let [now, most, count] = [0, 0, 0]
  const server = createServer((request, response) => {
    now++
    most = Math.max(most, now)
    count++
    request.resume()
    setTimeout(() => {
      now--
      response.writeHead(endpoint.isFailing ? 503 : 200).end()
    }, 100)
  })
  testbed.onEnd(() => server.closeAllConnections())
  const endpoint = {
    url: await listen(testbed, server),
    isFailing: false,
    most: () => most,
    count: () => count,
  }
  return endpoint
}
