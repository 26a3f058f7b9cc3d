/** Who gets the next job of a queue: takes, takes that are sent with a settle command, and pending takes. No Redis, no HTTP. */
import t from 'tap'
import { createDispatcher } from '../../src/dispatch/dispatcher.ts'
import type { LeasedJob, TakeRequest, TakeResult } from '../../src/dispatch/leased-job.ts'
import { EMPTY_TAKE } from '../../src/dispatch/take-reply.ts'
import type { Settlement, SettleResult } from '../../src/dispatch/worker-commands.ts'
import { SluiceError } from '../../src/errors.ts'
import type { QueueListener } from '../../src/events/queue-events.ts'
import { eventually } from '../helpers/app.ts'

const request: TakeRequest = { queue: 'q', max: 1, leaseMs: 1_000, worker: undefined }
const leased = (key: string): LeasedJob => ({
  queue: 'q',
  key,
  token: 't',
  opts: '{}',
  attemptsMade: 0,
  attemptsStarted: 1,
  name: 'n',
  data: Buffer.from('{}'),
  traceparent: undefined,
  attempts: 1,
  createdAtMs: 0,
  takenAtMs: 0,
})
const done: Settlement[] = [
  { lease: leased('done'), outcome: { outcome: 'complete', result: Buffer.from('null') } },
]
const never = new AbortController().signal
const keysOf = ({ jobs }: TakeResult) => jobs.map(({ key }) => key)

interface SettleCall {
  keys: string[]
  next: TakeRequest | undefined
}

/** A queue in memory. Every command is recorded; `hold` delays takes until it resolves. */
function open() {
  const ready: string[] = []
  const takes: TakeRequest[] = []
  const settles: SettleCall[] = []
  const broken = { settle: false, takeWithSettle: false }
  const gate: { hold: Promise<void> | undefined } = { hold: undefined }
  let listener: QueueListener | undefined
  const takeJobs = ({ max }: TakeRequest): TakeResult => ({
    ...EMPTY_TAKE,
    jobs: ready.splice(0, max).map(leased),
  })
  const commands = {
    async take(taken: TakeRequest) {
      takes.push(taken)
      await gate.hold
      return takeJobs(taken)
    },
    async settle(_: string, items: Settlement[], next?: TakeRequest): Promise<SettleResult> {
      settles.push({ keys: items.map(({ lease }) => lease.key), next })
      await gate.hold
      if (broken.settle) throw new SluiceError('REDIS_UNAVAILABLE')
      const taken = next && !broken.takeWithSettle ? takeJobs(next) : undefined
      return { refused: items.map(() => undefined), taken }
    },
  }
  const events = {
    subscribe: async (_: string, subscriber: QueueListener) => {
      listener = subscriber
      return { position: '0-0', isLive: () => true, close: () => {} }
    },
    noteStored: () => {},
  }
  const stalled = { watch: () => () => {}, noteActive: () => {} }
  const dispatcher = createDispatcher(commands, events, stalled, { nowMs: Date.now })
  /** Resolves when the queue was found empty after the subscription began, so that only an event leads to another take. */
  const untilQuiet = async () => {
    await eventually(() => listener !== undefined)
    let before: number
    do {
      before = takes.length
      await new Promise((resolve) => setTimeout(resolve, 20))
    } while (takes.length !== before)
  }
  return { dispatcher, ready, takes, settles, broken, gate, untilQuiet }
}

t.test('a take that is sent with a settle command needs no command of its own', async (t) => {
  const { dispatcher, ready, takes, settles } = open()
  ready.push('a')
  const { refused, taken } = await dispatcher.settleAndTake('q', done, request, {
    waitMs: 1_000,
    signal: never,
  })
  t.same(refused, [undefined])
  t.same(keysOf(await taken), ['a'])
  t.match(settles, [{ keys: ['done'], next: { queue: 'q' } }])
  t.equal(takes.length, 0)
  dispatcher.close()
})

t.test('a settle with next never overtakes pending takes', async (t) => {
  const { dispatcher, ready, settles, untilQuiet } = open()
  const first = dispatcher.take(request, Number.POSITIVE_INFINITY, never)
  await untilQuiet()
  ready.push('a', 'b')
  const second = await dispatcher.settleAndTake('q', done, request, { waitMs: 5_000, signal: never })
  t.equal(settles[0]?.next, undefined, 'nothing is taken with the settle command')
  t.equal(ready.length, 2)
  dispatcher.notify('q')
  t.same(keysOf(await first), ['a'])
  t.same(keysOf(await second.taken), ['b'])
  dispatcher.close()
})

t.test('a take that cannot be sent with the settle command and does not wait returns no job', async (t) => {
  const { dispatcher, ready, takes, untilQuiet } = open()
  const waiting = dispatcher.take(request, Number.POSITIVE_INFINITY, never)
  await untilQuiet()
  const before = takes.length
  ready.push('a')
  const { taken } = await dispatcher.settleAndTake('q', done, request)
  t.same(keysOf(await taken), [])
  t.equal(takes.length, before)
  dispatcher.close()
  t.same(keysOf(await waiting), [])
})

t.test('a take for another queue is not sent with the settle command', async (t) => {
  const { dispatcher, ready, takes, settles } = open()
  ready.push('a')
  const other = { ...request, queue: 'other' }
  const { taken } = await dispatcher.settleAndTake('q', done, other, { waitMs: 0, signal: never })
  t.same(keysOf(await taken), ['a'])
  t.equal(settles[0]?.next, undefined)
  t.match(takes, [{ queue: 'other' }])
})

t.test('after an empty take with a settle command the next take sends no command', async (t) => {
  const { dispatcher, takes, untilQuiet } = open()
  const leaving = new AbortController()
  const waiting = dispatcher.take(request, Number.POSITIVE_INFINITY, leaving.signal)
  await untilQuiet()
  leaving.abort()
  await waiting
  dispatcher.notify('q')
  await (await dispatcher.settleAndTake('q', done, request)).taken
  const before = takes.length
  t.same(keysOf(await dispatcher.take(request, 0, never)), [])
  t.equal(takes.length, before, 'the queue is known to be empty')
  dispatcher.notify('q')
  await dispatcher.take(request, 0, never)
  t.equal(takes.length, before + 1, 'it is no longer known')
  dispatcher.close()
})

t.test('a failed take with a settle command is repeated, and does not count as an empty queue', async (t) => {
  const { dispatcher, ready, takes, broken, untilQuiet } = open()
  const leaving = new AbortController()
  const waiting = dispatcher.take(request, Number.POSITIVE_INFINITY, leaving.signal)
  await untilQuiet()
  leaving.abort()
  await waiting
  broken.takeWithSettle = true
  dispatcher.notify('q')
  ready.push('a')
  const before = takes.length
  const { taken } = await dispatcher.settleAndTake('q', done, request, { waitMs: 0, signal: never })
  t.same(keysOf(await taken), ['a'])
  t.equal(takes.length, before + 1)
  dispatcher.close()
})

t.test('a failed settle command rejects, and returns the capacity that was reserved', async (t) => {
  const { dispatcher, broken } = open()
  broken.settle = true
  let reserved = 0
  const capacity = {
    take: () => {
      reserved += 3
      return 3
    },
    give: (count: number) => {
      reserved -= count
    },
  }
  await t.rejects(dispatcher.settleAndTake('q', done, { ...request, capacity }), {
    code: 'REDIS_UNAVAILABLE',
  })
  t.equal(reserved, 0)
})

t.test(
  'a take with a settle command asks for the capacity of its worker, and returns the rest',
  async (t) => {
    const { dispatcher, ready, settles } = open()
    ready.push('a')
    const given: number[] = []
    const withCapacity = (count: number) => ({
      ...request,
      max: 100,
      capacity: { take: () => count, give: (rest: number) => void given.push(rest) },
    })
    const { taken } = await dispatcher.settleAndTake('q', done, withCapacity(3))
    t.same(keysOf(await taken), ['a'])
    t.equal(settles[0]?.next?.max, 3)
    t.same(given, [2])
    await dispatcher.settleAndTake('q', done, withCapacity(0))
    t.equal(settles[1]?.next, undefined, 'without capacity nothing is taken')
    t.same(given, [2])
  },
)

t.test('jobs that are taken for a worker that has left are released', async (t) => {
  const { dispatcher, ready, settles, gate } = open()
  ready.push('a')
  const leaving = new AbortController()
  let release = () => {}
  gate.hold = new Promise((resolve) => {
    release = resolve
  })
  const settling = dispatcher.settleAndTake('q', done, request, { waitMs: 1_000, signal: leaving.signal })
  leaving.abort()
  release()
  t.same(keysOf(await (await settling).taken), [])
  t.match(settles, [{ keys: ['done'] }, { keys: ['a'] }])
})

t.test('a pending take whose worker leaves while it is served releases its jobs', async (t) => {
  const { dispatcher, ready, settles, gate, untilQuiet } = open()
  const leaving = new AbortController()
  const waiting = dispatcher.take(request, Number.POSITIVE_INFINITY, leaving.signal)
  await untilQuiet()
  let release = () => {}
  gate.hold = new Promise((resolve) => {
    release = resolve
  })
  ready.push('a')
  dispatcher.notify('q')
  leaving.abort()
  t.same(keysOf(await waiting), [])
  release()
  await eventually(() => settles.length === 1)
  t.same(settles[0]?.keys, ['a'])
  dispatcher.close()
})

t.test('close resolves every pending take, and no take waits after it', async (t) => {
  const { dispatcher, untilQuiet } = open()
  const waiting = [1, 2].map(() => dispatcher.take(request, Number.POSITIVE_INFINITY, never))
  await untilQuiet()
  t.equal(dispatcher.pendingCount(), 2)
  dispatcher.close()
  t.same((await Promise.all(waiting)).map(keysOf), [[], []])
  t.equal(dispatcher.pendingCount(), 0)
  t.ok(dispatcher.isClosing())
  t.same(keysOf(await dispatcher.take(request, Number.POSITIVE_INFINITY, never)), [])
})
