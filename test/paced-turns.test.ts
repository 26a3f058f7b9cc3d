/** Work on large values takes turns, and leaves the event loop free in between. */
import t from 'tap'
import { createPacedTurns, PACED_BYTES } from '../src/paced-turns.ts'

function block(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until) {
    // Holds the event loop.
  }
}

t.test('turns are granted one at a time, in order, and the rest is served in between', async (t) => {
  const turns = createPacedTurns()
  t.teardown(turns.close)
  const log: string[] = []
  const work = async (name: string) => {
    await turns.take()
    log.push(`${name} ${Math.round(performance.now())}`)
    block(10)
  }
  let ticks = 0
  const ticking = setInterval(() => ticks++, 1)
  const startedAt = performance.now()
  await Promise.all(['a', 'b', 'c'].map(work))
  clearInterval(ticking)
  t.same(
    log.map((line) => line[0]),
    ['a', 'b', 'c'],
  )
  const tookMs = performance.now() - startedAt
  t.ok(tookMs >= 3 * 10 + 2 * 30, `three turns of 10 ms and two pauses of 30 ms took ${tookMs} ms`)
  t.ok(ticks >= 5, `${ticks} timers ran meanwhile`)
})

t.test('the first turn is granted at once', async (t) => {
  const turns = createPacedTurns()
  t.teardown(turns.close)
  let isGranted = false
  void turns.take().then(() => {
    isGranted = true
  })
  await Promise.resolve()
  t.ok(isGranted)
})

t.test('a loop over large values waits each PACED_BYTES', async (t) => {
  const turns = createPacedTurns()
  t.teardown(turns.close)
  const pace = turns.perBytes()
  t.equal(pace(PACED_BYTES - 1), undefined)
  const turn = pace(1)
  t.ok(turn instanceof Promise)
  await turn
  t.equal(pace(PACED_BYTES - 1), undefined, 'the count starts again')
})

t.test('closing grants all turns', async (t) => {
  const turns = createPacedTurns()
  const granted = Promise.all([turns.take(), turns.take(), turns.take()])
  turns.close()
  await granted
  await turns.take()
  t.pass('none waits')
})
