import t from 'tap'
import {
  createSemaphore,
  type Priority,
  priorities,
  type Semaphore,
} from '../../../src/redis/gateway/semaphore.ts'

/** A semaphore without a free permit. */
function fullSemaphore(permits: number, maxWaiting: number): Semaphore {
  const semaphore = createSemaphore(permits, maxWaiting)
  while (semaphore.tryTake());
  return semaphore
}

/** Resolves after every promise that can settle has settled. */
const settled = () => new Promise((resolve) => setImmediate(resolve))

t.test('there are as many permits as configured, and a released one can be taken again', async (t) => {
  const semaphore = createSemaphore(2, 10)
  await semaphore.take('list')
  t.ok(semaphore.tryTake())
  t.notOk(semaphore.tryTake())
  semaphore.release()
  t.equal(semaphore.stats().inUse, 1)
  t.ok(semaphore.tryTake())
  t.match(semaphore.stats(), { permits: 2, inUse: 2, peak: 2, waiting: 0 })
})

t.test('waiting operations are served by priority, first in first out within one', async (t) => {
  const semaphore = fullSemaphore(1, 100)
  const order: string[] = []
  const arrivals: Priority[] = ['list', 'read', 'enqueue', 'settle', 'settle', 'list', 'enqueue', 'read']
  const waiting = arrivals.map((priority, index) =>
    semaphore.take(priority).then(() => {
      order.push(`${priority} ${index}`)
      semaphore.release()
    }),
  )
  await settled()
  t.same(order, [], 'none proceeds before a permit is free')
  semaphore.release()
  await Promise.all(waiting)
  t.same(order, ['settle 3', 'settle 4', 'enqueue 2', 'enqueue 6', 'read 1', 'read 7', 'list 0', 'list 5'])
  t.match(semaphore.stats(), { inUse: 0, waiting: 0, peak: 1 })
})

t.test('a released permit passes directly to the next operation', async (t) => {
  const semaphore = fullSemaphore(1, 10)
  const waiting = semaphore.take('list')
  semaphore.release()
  t.notOk(semaphore.tryTake(), 'in the same tick it already belongs to the next')
  await waiting
  t.match(semaphore.stats(), { inUse: 1, waiting: 0 })
})

t.test(
  'when too many operations of the same or higher priority wait, the next is refused as not executed',
  async (t) => {
    const semaphore = fullSemaphore(3, 2)
    const waiting = [semaphore.take('settle'), semaphore.take('settle')]
    for (const priority of priorities) {
      await t.rejects(semaphore.take(priority), {
        code: 'OVERLOADED',
        details: {
          outcome: 'not_executed',
          retryAfterS: 1,
          detail: /^3 operations are in flight and 2 more are waiting\. Repeat/,
        },
      })
    }
    t.match(semaphore.stats(), { refused: 4, waiting: 2, maxWaiting: 2 })
    semaphore.release()
    semaphore.release()
    await Promise.all(waiting)
    const again = semaphore.take('list')
    t.equal(semaphore.stats().waiting, 1, 'a granted operation makes room for another')
    semaphore.release()
    await again
  },
)

t.test('without capacity to wait, a full semaphore refuses at once', async (t) => {
  await t.rejects(fullSemaphore(1, 0).take('settle'), { code: 'OVERLOADED' })
})

t.test(
  'at the waiting limit, the newest operation of the lowest priority is displaced by one of a higher priority',
  async (t) => {
    const semaphore = createSemaphore(1, 3)
    t.ok(semaphore.tryTake())
    const ends: string[] = []
    const waitAs = (name: string, priority: Priority) =>
      semaphore.take(priority).then(
        () => ends.push(name),
        (error) => ends.push(`${name} ${error.code}`),
      )
    const waits = [waitAs('enqueue', 'enqueue'), waitAs('first list', 'list'), waitAs('last list', 'list')]
    waits.push(waitAs('another list', 'list'), waitAs('settle', 'settle'), waitAs('read', 'read'))
    waits.push(
      waitAs('another settle', 'settle'),
      waitAs('third settle', 'settle'),
      waitAs('fourth settle', 'settle'),
    )
    await settled()
    t.same(ends.toSorted(), [
      'another list OVERLOADED',
      'enqueue OVERLOADED',
      'first list OVERLOADED',
      'fourth settle OVERLOADED',
      'last list OVERLOADED',
      'read OVERLOADED',
    ])
    t.match(semaphore.stats(), { waiting: 3, refused: 6, waitingByPriority: { settle: 3 } })
    for (let i = 0; i < 3; i++) semaphore.release()
    await Promise.all(waits)
    t.same(ends.slice(6), ['settle', 'another settle', 'third settle'])
  },
)

t.test(
  'an aborted operation leaves the queue: the permit goes to the next, and another may wait',
  async (t) => {
    const semaphore = fullSemaphore(1, 2)
    const controller = new AbortController()
    const reason = new Error('gone')
    const first = semaphore.take('read', controller.signal)
    const second = semaphore.take('read')
    controller.abort(reason)
    await t.rejects(first, reason)
    t.match(semaphore.stats(), { waiting: 1, waitingByPriority: { read: 1 }, inUse: 1 })
    const third = semaphore.take('read')
    semaphore.release()
    await second
    semaphore.release()
    await third
    semaphore.release()
    t.match(semaphore.stats(), { inUse: 0, waiting: 0, refused: 0 })
  },
)

t.test('aborting after the permit was granted changes nothing', async (t) => {
  const semaphore = fullSemaphore(1, 1)
  const controller = new AbortController()
  const waiting = semaphore.take('read', controller.signal)
  semaphore.release()
  controller.abort()
  await waiting
  t.match(semaphore.stats(), { inUse: 1, waiting: 0 })
})

t.test('the statistics count waiting operations by priority, and keep the peak', async (t) => {
  const semaphore = fullSemaphore(2, 10)
  const waiting = (['read', 'read', 'settle'] as const).map((priority) => semaphore.take(priority))
  t.same(semaphore.stats(), {
    permits: 2,
    inUse: 2,
    waiting: 3,
    maxWaiting: 10,
    refused: 0,
    peak: 2,
    waitingByPriority: { settle: 1, enqueue: 0, read: 2, list: 0 },
  })
  for (let i = 0; i < 5; i++) semaphore.release()
  await Promise.all(waiting)
  t.match(semaphore.stats(), { inUse: 0, waiting: 0, peak: 2 })
})
