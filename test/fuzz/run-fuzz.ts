/**
 * Sends thousands of generated requests to a whole service on a real Redis, concurrently, and checks every response
 * against the contract and the invariants. Reports each kind of failure once, with the smallest request that reproduces it.
 *
 * FUZZ_CASES sets the number of requests and FUZZ_SEED selects them: a failure prints both, to repeat the same run.
 */
import * as fc from 'fast-check'
import type { Test } from 'tap'
import { startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'
import { createInjectClient, createSocketClient, type HttpResponse } from './clients.ts'
import { createContract } from './contract.ts'
import { createInvariants } from './invariants.ts'
import { createLeaseBook, SECRET } from './lease-book.ts'
import { blockNetwork } from './network-guard.ts'
import { type Case, type Document, type Operation, readOperations } from './operations.ts'
import { checkDeliveries, checkServiceState, seed } from './seed-and-verify.ts'
import { createSeenValues } from './seen-values.ts'
import { unknownRoute } from './unknown-routes.ts'
import { startWebhookEndpoint } from './webhook-endpoint.ts'

const CASES = Number(process.env['FUZZ_CASES'] ?? 20_000)
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31)

/** Requests in flight. */
const CONCURRENCY = 64
/** Cases that are generated together, from one seed. */
const SLICE = 50
/** One request in this total uses a socket; those for event streams always do. */
const SOCKET_ONE_IN = 8
/** `inject` resolves dot segments as browsers do; Node's client sends them unchanged. */
const DOTS = /\/(\.|%2e){1,2}(\/|\?|$)/i

/** The share of each operation in all cases, in thousandths; SMALL_SHARE for those not named. */
const shares: Record<string, number> = {
  ...{ addJob: 190, addJobs: 100, getJob: 110, listJobs: 100, followJob: 35, followQueue: 25 },
  ...{ takeLeases: 80, settleLeases: 100, extendLeases: 40, putSubscription: 45, getSubscription: 15 },
  ...{ deleteSubscription: 10, rotateSecret: 15, getProblemType: 20, unknownRoute: 55 },
}
const SMALL_SHARE = 10

interface Outcome {
  /** The request as sent. */
  testCase: Case
  response?: HttpResponse
  /** 0: no response. */
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
  const violations = blockNetwork(t)
  const endpoint = await startWebhookEndpoint(t)
  // Disables load shedding, so that any 503 is a failure.
  const shedding = { REDIS_MAX_WAITING: '100000', ENQUEUE_MAX_WAITING: '1000000', MAX_EVENT_LOOP_DELAY: '0' }
  const app = await startApp(redis, { ...shedding, SECRET, WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' })
  t.teardown(() => app.http.close())
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  await seed(app, redis)

  const document = app.http.swagger() as unknown as Document
  const operations = [...readOperations(document), unknownRoute]
  const faultsOf = createContract(document)
  const sockets = createSocketClient((app.http.server.address() as { port: number }).port)
  const inject = createInjectClient(app)
  const counts = new Map(operations.map(({ id }) => [id, new Map<number, number>()]))
  const failures = new Map<string, Failure>()
  const slow: Failure[] = []
  const leases = createLeaseBook()
  const invariants = createInvariants(leases)
  const shared = { leases, endpointPort: endpoint.port }
  const seenValues = new Map(operations.map(({ id }) => [id, createSeenValues(id, shared)]))

  /** Event streams always use a socket, because `inject` waits for the end of a response. */
  async function run(operation: Operation, given: Case, overSocket: boolean): Promise<Outcome> {
    const seen = seenValues.get(operation.id)!
    const testCase = seen.fill(given)
    invariants.begin(operation.id, testCase)
    let response: HttpResponse
    try {
      const usesSocket = overSocket && !DOTS.test(testCase.url)
      response = await (usesSocket || operation.id.startsWith('follow')
        ? sockets.send(testCase)
        : inject(testCase))
    } catch (error) {
      invariants.end(testCase)
      return { testCase, status: 0, faults: [`no response: ${(error as Error).message}`] }
    }
    seen.note(testCase, response)
    const faults = faultsOf(operation, testCase, response)
    // The invariants need a response that matches the document.
    if (faults.every(isSlow))
      faults.push(...(await invariants.check(operation.id, testCase, response, inject)))
    invariants.end(testCase)
    return { testCase, response, status: response.status, faults }
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

  const cases = interleave(slicesOf(operations))
  await Promise.all(Array.from({ length: CONCURRENCY }, () => work(cases)))
  // The load may be the cause: a request is slow only if it is slow on its own.
  for (const failure of slow) {
    const { operation, outcome } = failure
    note({ ...failure, outcome: await run(operation, outcome.testCase, false) })
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
    t.ok(id === 'unknownRoute' || served >= total / 20, `${id}: ${served} of ${total} passed validation`)
  }
  await checkDeliveries(t, app, endpoint, invariants.subscriptions)
  await checkServiceState(t, app, invariants.subscriptions.queues(), invariants.leases.waitedFor)
  t.same(violations, [], 'no connection left this machine')
}

const isSlow = (fault: string) => fault.startsWith('it took')

/** The slices of each operation. */
function slicesOf(operations: Operation[]): Slice[][] {
  return operations.map((operation, at) => {
    const total = Math.ceil((CASES * (shares[operation.id] ?? SMALL_SHARE)) / 1_000)
    return Array.from({ length: Math.ceil(total / SLICE) }, (_, index) => ({
      operation,
      // The factors keep the seeds of all slices of a run distinct.
      seed: (SEED + at * 1_000_003 + index * 7_919) | 0,
      size: Math.min(SLICE, total - index * SLICE),
    }))
  })
}

/** Interleaves all operations, each spread over the whole run, so that they use each other's jobs. */
function* interleave(slices: Slice[][]): Generator<[Slice, number, Case]> {
  const queues = slices.map((own) => ({
    ...{ cases: casesOf(own), done: 0, total: own.reduce((sum, { size }) => sum + size, 0) },
  }))
  for (;;) {
    const open = queues.filter(({ done, total }) => done < total)
    if (open.length === 0) return
    const mostBehind = open.reduce((a, b) => ((a.done + 0.5) / a.total <= (b.done + 0.5) / b.total ? a : b))
    mostBehind.done++
    yield mostBehind.cases.next().value as [Slice, number, Case]
  }
}

function* casesOf(slices: Slice[]): Generator<[Slice, number, Case]> {
  for (const slice of slices) {
    const { operation, seed, size } = slice
    for (const [index, testCase] of fc.sample(operation.cases, { seed, numRuns: size }).entries()) {
      yield [slice, index, testCase]
    }
  }
}

/** Everything needed to reproduce a failure. */
async function explain(
  { operation, outcome, seed, index, times }: Failure,
  run: (operation: Operation, testCase: Case, overSocket: boolean) => Promise<Outcome>,
): Promise<object> {
  const { testCase, response } = outcome
  const { failed, counterexample } = await fc.check(
    fc.asyncProperty(operation.cases, async (one) => (await run(operation, one, false)).faults.length === 0),
    { seed, path: String(index), numRuns: 1, interruptAfterTimeLimit: 3_000 },
  )
  const [smallest] = counterexample ?? []
  return {
    repeat: `FUZZ_SEED=${SEED} FUZZ_CASES=${CASES}`,
    times,
    testCase: shorten(testCase),
    response:
      response && shorten({ status: response.status, headers: response.headers, body: response.body }),
    smallest: failed && smallest ? shorten(smallest) : 'not reproducible on its own',
    stack: '',
  }
}

function shorten(value: object): string {
  const text = JSON.stringify(value)
  return text.length > 1_500 ? `${text.slice(0, 1_500)}… (${text.length})` : text
}
