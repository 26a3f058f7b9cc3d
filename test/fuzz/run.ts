/**
 * Puts thousands of generated requests to a whole service on a real Redis, many at a time, and holds every answer against
 * the contract. What is wrong is told once per kind, with the smallest request that still does it.
 *
 * FUZZ_CASES says how many there are in all, FUZZ_SEED which: a failure prints both, and they make the same requests again.
 */
import * as fc from 'fast-check'
import type { Test } from 'tap'
import { startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { type Answer, dialling, injecting } from './clients.ts'
import { createContract } from './contract.ts'
import { fence } from './fence.ts'
import { createLeaseBook, SECRET } from './lease-book.ts'
import { createMemory } from './memory.ts'
import { nothing } from './nothing.ts'
import { type Case, type Document, type Operation, readOperations } from './operations.ts'
import { createPromises } from './promises.ts'
import { startHookReceiver } from './receiver.ts'
import { areDelivered, isWell, seed } from './well.ts'

const CASES = Number(process.env['FUZZ_CASES'] ?? 20_000)
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)

/** Requests under way at once. */
const CONCURRENCY = 64
/** Cases that are made at once, from a seed of their own. */
const SLICE = 50
/** One in so many goes over a socket; those for event streams all do. */
const SOCKET_ONE_IN = 8
/** `inject` resolves such a path as browsers do, which makes another of it than what Node's client sends. */
const DOTS = /\/(\.|%2e){1,2}(\/|\?|$)/i

/** How many of all the cases, in thousandths; an operation that is not named has the share of a small one. */
const shares: Record<string, number> = {
  ...{ addJob: 190, addJobs: 100, getJob: 110, listJobs: 100, followJob: 35, followQueue: 25 },
  ...{ takeLeases: 80, settleLeases: 100, extendLeases: 40, putSubscription: 45, getSubscription: 15 },
  ...{ deleteSubscription: 10, rotateSecret: 15, getProblemType: 20, nothing: 55 },
}
const SMALL_SHARE = 10

interface Outcome {
  /** As it was sent. */
  asked: Case
  answer?: Answer
  /** 0: there was no answer. */
  status: number
  faults: string[]
}

interface Failure {
  operation: Operation
  outcome: Outcome
  seed: number
  index: number
  times: number
}

interface Slice {
  operation: Operation
  seed: number
  size: number
}

export async function runFuzz(t: Test): Promise<void> {
  t.comment(`FUZZ_SEED=${SEED} FUZZ_CASES=${CASES}`)
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const crossed = fence(t)
  const receiver = await startHookReceiver(t)
  // Nothing is to be shed here, however many come at once and however busy the machine is.
  const shedding = { REDIS_MAX_WAITING: '100000', ENQUEUE_MAX_WAITING: '1000000', MAX_EVENT_LOOP_DELAY: '0' }
  const app = await startApp(redis, { ...shedding, SECRET, WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
  t.teardown(() => app.http.close())
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  await seed(app, redis)

  const document = app.http.swagger() as unknown as Document
  const operations = [...readOperations(document), nothing]
  const faultsOf = createContract(document)
  const sockets = dialling((app.http.server.address() as { port: number }).port)
  const inject = injecting(app)
  const counts = new Map(operations.map(({ id }) => [id, new Map<number, number>()]))
  const failures = new Map<string, Failure>()
  const slow: Failure[] = []
  const leases = createLeaseBook()
  const promises = createPromises(leases)
  const shared = { leases, receiverPort: receiver.port }
  const memories = new Map(operations.map(({ id }) => [id, createMemory(id, shared)]))

  /** What goes on after its headers is asked for over a socket in any case. */
  async function run(operation: Operation, given: Case, overSocket: boolean): Promise<Outcome> {
    const memory = memories.get(operation.id)!
    const asked = memory.recall(given)
    promises.begin(operation.id, asked)
    let answer: Answer
    try {
      const isDialled = overSocket && !DOTS.test(asked.url)
      answer = await (isDialled || operation.id.startsWith('follow') ? sockets.ask(asked) : inject(asked))
    } catch (error) {
      promises.end(asked)
      return { asked, status: 0, faults: [`there is no answer: ${(error as Error).message}`] }
    }
    memory.note(asked, answer)
    const faults = faultsOf(operation, asked, answer)
    // Of an answer that is not even in shape nothing more can be said.
    if (faults.every(isSlow)) faults.push(...(await promises.check(operation.id, asked, answer, inject)))
    promises.end(asked)
    return { asked, answer, status: answer.status, faults }
  }

  async function work(cases: Iterator<[Slice, number, Case]>): Promise<void> {
    for (let next = cases.next(); !next.done; next = cases.next()) {
      const [{ operation, seed }, index, given] = next.value
      const outcome = await run(operation, given, index % SOCKET_ONE_IN === 0)
      const ofOperation = counts.get(operation.id)!
      ofOperation.set(outcome.status, (ofOperation.get(outcome.status) ?? 0) + 1)
      const failure = { operation, outcome, seed, index, times: 1 }
      if (outcome.faults.some(isSlow)) slow.push(failure)
      note({ ...failure, outcome: { ...outcome, faults: outcome.faults.filter((fault) => !isSlow(fault)) } })
    }
  }

  function note(failure: Failure): void {
    for (const fault of failure.outcome.faults) {
      const kind = `${failure.operation.id}: ${fault.replaceAll(/\d{4,}/g, 'N')}`
      const known = failures.get(kind)
      if (known) known.times++
      else failures.set(kind, failure)
    }
  }

  const cases = mixed(slicesOf(operations))
  await Promise.all(Array.from({ length: CONCURRENCY }, () => work(cases)))
  // So many at once on a busy machine may be why: slow is what is slow by itself.
  for (const failure of slow) {
    const { operation, outcome } = failure
    note({ ...failure, outcome: await run(operation, outcome.asked, false) })
  }

  for (const [id, byStatus] of counts) {
    const all = [...byStatus].sort().map(([status, times]) => `${status} ×${times}`)
    t.comment(`${id}: ${all.join(', ')}`)
  }
  for (const [kind, failure] of failures) t.fail(kind, await explain(failure, run))
  sockets.close()
  for (const [id, byStatus] of counts) {
    const total = [...byStatus.values()].reduce((sum, times) => sum + times, 0)
    const served = [...byStatus].reduce((sum, [status, times]) => sum + (status < 400 ? times : 0), 0)
    t.ok(id === 'nothing' || served >= total / 20, `${id}: ${served} of ${total} got behind the checks`)
  }
  await areDelivered(t, app, receiver, promises.subscriptions)
  await isWell(t, app, promises.subscriptions.queues(), promises.leases.waitedFor)
  t.same(crossed, [], 'nothing went beyond this machine')
}

const isSlow = (fault: string) => fault.startsWith('it took')

/** Of each operation its own. */
function slicesOf(operations: Operation[]): Slice[][] {
  return operations.map((operation, at) => {
    const many = Math.ceil((CASES * (shares[operation.id] ?? SMALL_SHARE)) / 1_000)
    return Array.from({ length: Math.ceil(many / SLICE) }, (_, index) => ({
      operation,
      // Far enough apart that no two slices of a run are the same.
      seed: (SEED + at * 1_000_003 + index * 7_919) | 0,
      size: Math.min(SLICE, many - index * SLICE),
    }))
  })
}

/** All operations mixed, each spread over the whole run, so that they meet each other's jobs. */
function* mixed(slices: Slice[][]): Generator<[Slice, number, Case]> {
  const lines = slices.map((own) => ({
    ...{ cases: casesOf(own), done: 0, many: own.reduce((sum, { size }) => sum + size, 0) },
  }))
  for (;;) {
    const open = lines.filter(({ done, many }) => done < many)
    if (open.length === 0) return
    const late = open.reduce((a, b) => ((a.done + 0.5) / a.many <= (b.done + 0.5) / b.many ? a : b))
    late.done++
    yield late.cases.next().value as [Slice, number, Case]
  }
}

function* casesOf(slices: Slice[]): Generator<[Slice, number, Case]> {
  for (const slice of slices) {
    const { operation, seed, size } = slice
    for (const [index, asked] of fc.sample(operation.cases, { seed, numRuns: size }).entries()) {
      yield [slice, index, asked]
    }
  }
}

/** Everything one needs to see it again. */
async function explain(
  { operation, outcome, seed, index, times }: Failure,
  run: (operation: Operation, asked: Case, overSocket: boolean) => Promise<Outcome>,
): Promise<object> {
  const { asked, answer } = outcome
  const { failed, counterexample } = await fc.check(
    fc.asyncProperty(operation.cases, async (one) => (await run(operation, one, false)).faults.length === 0),
    { seed, path: String(index), numRuns: 1, interruptAfterTimeLimit: 3_000 },
  )
  const [smallest] = counterexample ?? []
  return {
    repeat: `FUZZ_SEED=${SEED} FUZZ_CASES=${CASES}`,
    times,
    asked: shorten(asked),
    answer: answer && shorten({ status: answer.status, headers: answer.headers, body: answer.body }),
    smallest: failed && smallest ? shorten(smallest) : 'it does not happen again by itself',
    stack: '',
  }
}

function shorten(value: object): string {
  const text = JSON.stringify(value)
  return text.length > 1_500 ? `${text.slice(0, 1_500)}… (${text.length})` : text
}
