/** X4: in each queue one of twenty jobs has a hash that BullMQ would not write. The others are worked and read as if it were not there. */
import { createServer } from 'node:http'
import { Queue, Worker } from 'bullmq'
import { attackBeside, openTarget, type Target, withChecks } from '../attacks.ts'
import type { HttpClient, HttpResponse } from '../clients.ts'
import { PREFIX } from '../drain.ts'
import { listen, subscribe } from '../endpoints.ts'
import { type Check, controlScale, type Finding, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const JOBS = 20
const POISONED = 'job-7'
const DONE_MS = 2_000
const QUICK_DONE_MS = 5_000
/** How long a round waits for jobs that should be done. */
const PATIENCE_MS = 6_000

/** Fields of the hash; null: the hash is missing. */
const poisons: Record<string, Record<string, string> | null> = {
  'progress-not-json': { progress: '{oops' },
  'opts-not-json': { opts: '{oops' },
  'opts-null': { opts: 'null' },
  'opts-attempts': { opts: '{"attempts":1.5}' },
  'parent-not-json': { parent: '{oops', parentKey: 'bull:none:1' },
  'timestamp-text': { timestamp: 'yesterday' },
  'attempts-not-integer': { atm: '1.5', ats: 'x' },
  'delay-huge': { delay: '1e18', priority: 'x' },
  'data-not-json': { data: `{oops${' '.repeat(70_000)}` },
  'stacktrace-not-json': { stacktrace: '{oops', returnvalue: '{oops', failedReason: '{oops' },
  'hash-missing': null,
}

type Mode = 'pull' | 'push'

export const poisonedJobs: Scenario = {
  id: 'X4',
  fault: 'one of twenty jobs is malformed, in many ways; pulled, pushed and read',
  run: (testbed, scale) => poison(testbed, scale, { work: workOverHttp }),
  controls: [
    {
      what: 'a native worker in place of the service',
      misses: 'malformed jobs neither done nor failed with a reason',
      run: (testbed, scale) => poison(testbed, controlScale(scale), { work: workNatively }),
    },
  ],
}

interface Work {
  target: Target
  httpClient: HttpClient
  queue: string
  mode: Mode
  /** An endpoint that accepts everything. */
  endpoint: string
  isOver(): boolean
  /** A response was not JSON. */
  onNotJson(): void
}

interface Outcome {
  queue: string
  /** When the last of the healthy jobs was done, or PATIENCE_MS. */
  ms: number
  undone: number
  /** State of the malformed job: undefined if it may be in any. */
  malformed: string | undefined
  /** Responses to reads other than 200. */
  badReads: string[]
}

async function poison(
  testbed: Testbed,
  scale: Scale,
  { work }: { work(testbed: Testbed, work: Work): Promise<unknown> },
): Promise<Finding> {
  const target = await openTarget(testbed, { env: { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' } })
  const httpClient = testbed.httpClient()
  const endpoint = await startEndpoint(testbed)
  const outcomes: Outcome[] = []
  const notJson: string[] = []
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const deadline = performance.now() + seconds * 1_000
    for (let round = 0; round === 0 || performance.now() < deadline; round++) {
      const queues = Object.keys(poisons).flatMap((kind) =>
        (['pull', 'push'] as const).map((mode) => ({ kind, mode, queue: `${kind}-${mode}-${round}` })),
      )
      for (const { kind, queue } of queues) await addPoisoned(target, queue, poisons[kind]!)
      const startedAt = performance.now()
      const found = queues.map(async ({ kind, mode, queue }) => {
        let isOver = false
        const working = work(testbed, {
          ...{ target, httpClient, queue, mode, endpoint, isOver: () => isOver },
          onNotJson: () => void notJson.push(queue),
        })
        const outcome = await watch(target, httpClient, queue, kind, startedAt)
        isOver = true
        await working
        outcomes.push(outcome)
      })
      await Promise.all(found)
    }
  })
  const garbled = { what: 'leases that are not JSON', measured: notJson.length, atMost: 0, samples: notJson }
  return withChecks(finding, [...judge(scale, outcomes), garbled], {
    queues: outcomes.length,
    'kinds of malformed jobs': Object.keys(poisons).length,
  })
}

function judge({ isQuick }: Scale, outcomes: Outcome[]): Check[] {
  const undone = outcomes.filter((one) => one.undone > 0)
  const isSettled = ({ malformed = 'any' }: Outcome) => /^(any|completed|failed: .)/.test(malformed)
  const unsettled = outcomes.filter((one) => !isSettled(one))
  const reads = outcomes.flatMap(({ badReads }) => badReads)
  return [
    {
      what: 'healthy jobs beside a malformed one not done',
      measured: undone.reduce((sum, one) => sum + one.undone, 0),
      atMost: 0,
      samples: undone.map(({ queue, undone }) => `${queue}: ${undone}`),
    },
    {
      what: 'the healthy jobs of a queue done after, most, ms',
      measured: Math.max(...outcomes.map(({ ms }) => ms)),
      atMost: isQuick ? QUICK_DONE_MS : DONE_MS,
    },
    {
      what: 'malformed jobs neither done nor failed with a reason',
      measured: unsettled.length,
      atMost: 0,
      samples: unsettled.map(({ queue, malformed }) => `${queue}: ${malformed}`),
    },
    { what: 'reads not answered with 200', measured: reads.length, atMost: 0, samples: reads.slice(0, 5) },
  ]
}

async function addPoisoned(
  { redis: { client } }: Target,
  name: string,
  fields: Record<string, string> | null,
): Promise<void> {
  const queue = new Queue(name, { connection: client })
  const jobs = Array.from({ length: JOBS }, (_, index) => ({
    ...{ name: 'n', data: { index }, opts: { jobId: `job-${index}` } },
  }))
  await queue.addBulk(jobs)
  const key = `${PREFIX}:${name}:${POISONED}`
  if (fields) await client.hset(key, fields)
  else await client.del(key)
}

/** Waits until the healthy jobs are done, and reads the queue meanwhile. */
async function watch(
  { redis: { client }, service, ordinary }: Target,
  httpClient: HttpClient,
  queue: string,
  kind: string,
  startedAt: number,
): Promise<Outcome> {
  const badReads: string[] = []
  const healthy = Array.from({ length: JOBS }, (_, index) => `job-${index}`).filter((key) => key !== POISONED)
  const ids = [...healthy, POISONED].map((key) => `${queue}:${key}`).join()
  const read = async (path: string) => {
    const { status, body } = await httpClient.ask(service.url + path, { headers: ordinary })
    if (status !== 200) badReads.push(`${path.slice(0, 60)}: ${status} ${body.slice(0, 100)}`)
  }
  const countDone = () => client.zcount(`${PREFIX}:${queue}:completed`, '-inf', '+inf')
  // The malformed job may be completed as well.
  const isMalformedDone = () => client.zscore(`${PREFIX}:${queue}:completed`, POISONED)
  let undone = healthy.length
  const look = async () => {
    undone = healthy.length - ((await countDone()) - ((await isMalformedDone()) === null ? 0 : 1))
    return undone === 0
  }
  await Promise.all([read(`/jobs?queue=${queue}&limit=200`), read(`/jobs?ids=${ids}`)])
  await until('the healthy jobs are done', look, PATIENCE_MS, 100).catch(() => {})
  const ms = performance.now() - startedAt
  await Promise.all([
    ...[read(`/jobs?queue=${queue}&limit=200`), read(`/jobs?ids=${ids}&include=data`)],
    ...healthy.slice(0, 3).map((key) => read(`/jobs/${queue}:${key}?include=data`)),
  ])
  const malformed = kind === 'hash-missing' ? undefined : await stateOf(client, queue)
  return { queue, ms, undone, malformed, badReads }
}

/** For a failed job with its reason. */
async function stateOf(client: Target['redis']['client'], name: string): Promise<string> {
  const queue = new Queue(name, { connection: client })
  const state = () => queue.getJobState(POISONED)
  await until('it is settled', async () => /completed|failed/.test(await state()), 500, 50).catch(() => {})
  const found = await state()
  if (found !== 'failed') return found
  return `failed: ${await client.hget(`${PREFIX}:${name}:${POISONED}`, 'failedReason')}`
}

async function workOverHttp(_: Testbed, work: Work): Promise<void> {
  const { target, httpClient, queue, mode, endpoint, isOver, onNotJson } = work
  const { service, ordinary } = target
  if (mode === 'push') {
    return subscribe(httpClient, service, queue, { url: endpoint, timeoutMs: 1_000 }, ordinary)
  }
  const ask = (path: string, body: object): Promise<HttpResponse> =>
    httpClient.ask(service.url + path, { headers: ordinary, body: JSON.stringify(body) })
  while (!isOver()) {
    const { status, body } = await ask(`/queues/${queue}/leases`, { max: 5, wait: 1 })
    if (status !== 200) {
      await sleep(50)
      continue
    }
    const jobs = jobsOf(body)
    if (!jobs) {
      onNotJson()
      continue
    }
    await ask('/leases/settle', { items: jobs.map(({ lease }) => ({ lease, outcome: 'complete' })) })
  }
}

/** Undefined if the response is not JSON. */
function jobsOf(body: string): { lease: string }[] | undefined {
  try {
    return (JSON.parse(body) as { jobs: { lease: string }[] }).jobs
  } catch {
    return undefined
  }
}

async function workNatively(testbed: Testbed, { target: { redis }, queue, isOver }: Work): Promise<void> {
  const connection = { ...redis.place, maxRetriesPerRequest: null }
  const worker = new Worker(queue, async () => {}, { connection })
  worker.on('error', () => {})
  testbed.onEnd(() => worker.close(true))
  await until('the round is over', isOver, PATIENCE_MS * 2, 50)
  await worker.close(true)
}

async function startEndpoint(testbed: Testbed): Promise<string> {
  const server = createServer((request, response) => {
    request.resume()
    request.on('end', () => response.end())
  })
  testbed.onEnd(() => server.closeAllConnections())
  return listen(testbed, server)
}
