/** The order of a shutdown, without anything to shut down. */
import t from 'tap'
import { createLifecycle } from '../src/lifecycle.ts'

/** Records calls; `finish(name)` ends a stop or close that was created with `slow`. */
function recorder() {
  const calls: string[] = []
  const finishers = new Map<string, () => void>()
  return {
    calls,
    end: (name: string) => () => void calls.push(name),
    slow: (name: string) => () => {
      calls.push(name)
      return new Promise<void>((resolve) => finishers.set(name, resolve))
    },
    finish: (name: string) => finishers.get(name)!(),
  }
}

t.test('closes run in reverse, each after the one before has ended', async (t) => {
  const { calls, end, slow, finish } = recorder()
  const { onClose, close } = createLifecycle()
  onClose(end('connections'))
  onClose(slow('enqueuer'))
  onClose(end('client'))
  const closed = close()
  await new Promise(setImmediate)
  t.same(calls, ['client', 'enqueuer'])
  finish('enqueuer')
  await closed
  t.same(calls, ['client', 'enqueuer', 'connections'])
})

t.test('stops start together, newest first, and all are awaited', async (t) => {
  const { calls, slow, finish } = recorder()
  const { onStop, stop } = createLifecycle()
  for (const name of ['waiters', 'dispatcher', 'webhooks']) onStop(slow(name))
  let isStopped = false
  const stopped = stop().then(() => {
    isStopped = true
  })
  t.same(calls, ['webhooks', 'dispatcher', 'waiters'])
  finish('webhooks')
  finish('waiters')
  await new Promise(setImmediate)
  t.notOk(isStopped)
  finish('dispatcher')
  await stopped
})

t.test('an end that fails is reported after all others have run', async (t) => {
  const { calls, end } = recorder()
  const { onStop, onClose, stop, close } = createLifecycle()
  onStop(end('a'))
  onStop(() => Promise.reject(new Error('first')))
  onClose(end('b'))
  onClose(() => {
    throw new Error('second')
  })
  await t.rejects(stop(), { message: 'first' })
  await t.rejects(close(), { message: 'second' })
  t.same(calls, ['a', 'b'])
})

t.test('what is registered while closing is closed too, and nothing is closed twice', async (t) => {
  const { calls, end } = recorder()
  const { onClose, close } = createLifecycle()
  onClose(end('first'))
  onClose(async () => onClose(end('late')))
  await close()
  await close()
  t.same(calls, ['late', 'first'])
})

t.test('draining is a state of its own, before stopping', async (t) => {
  const { drain, isDraining } = createLifecycle()
  t.notOk(isDraining())
  drain()
  t.ok(isDraining())
})
