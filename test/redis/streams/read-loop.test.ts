/** The loop that repeats the reads: one run at a time, a retry after a failure, and an end in bounded time. */
import t, { type Test } from 'tap'
import { createReadLoop, type ReadLoop } from '../../../src/redis/streams/read-loop.ts'

interface Run {
  end(): void
  fail(message: string): void
}

/** A loop whose runs end when the test says so. */
function open(t: Test) {
  const runs: Run[] = []
  const failures: string[] = []
  const switches = { canRun: true }
  const loop: ReadLoop = createReadLoop({
    canRun: () => switches.canRun,
    run: () =>
      new Promise((end, reject) => {
        runs.push({ end, fail: (message) => reject(new Error(message)) })
      }),
    onFailure: ({ message }) => failures.push(message),
  })
  t.teardown(() => {
    switches.canRun = false
    for (const { end } of runs) end()
    return loop.close(() => {})
  })
  return { loop, runs, failures, switches }
}

const settled = () => new Promise((resolve) => setImmediate(resolve))

t.test('there is one run at a time, and none while it cannot run', async (t) => {
  const { loop, runs, switches } = open(t)
  switches.canRun = false
  loop.start()
  t.equal(runs.length, 0)
  switches.canRun = true
  loop.start()
  loop.start()
  t.equal(runs.length, 1)
})

t.test('a run that ends is followed by another if there is still work', async (t) => {
  const { loop, runs, switches } = open(t)
  loop.start()
  runs[0]!.end()
  await settled()
  t.equal(runs.length, 2)
  switches.canRun = false
  runs[1]!.end()
  await settled()
  t.equal(runs.length, 2)
})

t.test('a failure is reported, and the next run waits for the retry or for retryNow', async (t) => {
  const { loop, runs, failures } = open(t)
  loop.start()
  runs[0]!.fail('NOPERM')
  await settled()
  t.same(failures, ['NOPERM'])
  loop.start()
  t.equal(runs.length, 1, 'start does not skip the wait')
  loop.retryNow()
  t.equal(runs.length, 2)
  runs[1]!.fail('LOADING')
  const failedAt = performance.now()
  while (runs.length < 3) await new Promise((resolve) => setTimeout(resolve, 10))
  t.ok(performance.now() - failedAt >= 990, 'the retry comes after a second')
  t.same(failures, ['NOPERM', 'LOADING'])
})

t.test('close interrupts the run until it ends, and no run follows', async (t) => {
  const { loop, runs, failures } = open(t)
  loop.start()
  let interrupts = 0
  await loop.close(() => {
    if (++interrupts === 2) runs[0]!.fail('Connection is closed.')
  })
  t.equal(interrupts, 2)
  t.ok(loop.isClosed)
  t.same(failures, [], 'a failure after close is expected')
  loop.start()
  loop.retryNow()
  t.equal(runs.length, 1)
})

t.test('close gives up on a run that does not end', async (t) => {
  const { loop } = open(t)
  loop.start()
  const startedAt = performance.now()
  await loop.close(() => {})
  const elapsedMs = performance.now() - startedAt
  t.ok(elapsedMs >= 450 && elapsedMs < 5_000, `${elapsedMs} ms`)
})
