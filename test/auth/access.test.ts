/** What a key's patterns let through. */
import t from 'tap'
import { anonymous, assertQueueAccess, createQueueMatcher, unauthenticated } from '../../src/auth/access.ts'

t.test('a pattern matches its queues whole, and a star any characters', async (t) => {
  const mayEnter = createQueueMatcher(['emails', 'img-*', '*.eu', 'a*b*c', 'v1.0'])
  for (const queue of ['emails', 'img-', 'img-large', 'shop.eu', '.eu', 'abc', 'a-b-c', 'v1.0']) {
    t.ok(mayEnter(queue), queue)
  }
  for (const queue of [
    'email',
    'emails2',
    'xemails',
    'Emails',
    'img',
    'shop.eu2',
    'shopeu',
    'acb',
    'v1x0',
    '',
  ]) {
    t.notOk(mayEnter(queue), queue)
  }
})

t.test('a star alone is every queue, no pattern is none', async (t) => {
  t.ok(createQueueMatcher(['*'])('anything'))
  t.notOk(createQueueMatcher([])('anything'))
})

t.test('a pattern full of stars takes no time to say no', async (t) => {
  const mayEnter = createQueueMatcher([`${'*a'.repeat(12)}b`])
  const began = performance.now()
  t.notOk(mayEnter('a'.repeat(100)))
  t.ok(performance.now() - began < 100)
  t.ok(createQueueMatcher(['a*a'])('aa'))
  t.notOk(createQueueMatcher(['a*a'])('a'), 'no character is two pieces at once')
})

t.test('a queue outside is told as one that is not there', async (t) => {
  t.throws(() => assertQueueAccess(unauthenticated, 'emails'), { code: 'QUEUE_NOT_FOUND' })
  t.doesNotThrow(() => assertQueueAccess(anonymous, 'emails'))
})
