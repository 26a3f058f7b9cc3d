/** Queue patterns of API keys, and what a caller without access to a queue sees. */
import t from 'tap'
import { anonymous, assertQueueAccess, createQueueMatcher, unauthenticated } from '../../src/auth/access.ts'

t.test('a pattern matches whole names, and a star matches any characters', async (t) => {
  const matches = createQueueMatcher(['emails', 'img-*', '*.eu', 'a*b*c', 'v1.0'])
  for (const queue of ['emails', 'img-', 'img-large', 'shop.eu', '.eu', 'abc', 'a-b-c', 'v1.0']) {
    t.ok(matches(queue), queue)
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
    t.notOk(matches(queue), queue)
  }
})

t.test('after a backslash a character stands for itself', async (t) => {
  const matches = createQueueMatcher(['\\*', 'a\\*b*', '\\\\', 'c\\d', 'end\\', '😀*', '__proto__', 'x\ny*'])
  for (const queue of ['*', 'a*b', 'a*b\n', '\\', 'cd', 'end\\', '😀', '😀😀', '__proto__', 'x\ny\n'])
    t.ok(matches(queue), JSON.stringify(queue))
  for (const queue of ['x', 'axb', '', '\\*', 'c\\d', 'end', '\ud83d', 'constructor', 'toString'])
    t.notOk(matches(queue), JSON.stringify(queue))
})

t.test('a lone star matches every queue, and no pattern matches none', async (t) => {
  t.ok(createQueueMatcher(['*'])('anything'))
  t.notOk(createQueueMatcher([])('anything'))
})

t.test('a pattern with many stars is rejected in linear time', async (t) => {
  const matches = createQueueMatcher([`${'*a'.repeat(12)}b`])
  const startedAt = performance.now()
  t.notOk(matches('a'.repeat(100)))
  t.ok(performance.now() - startedAt < 100)
  t.ok(createQueueMatcher(['a*a'])('aa'))
  t.notOk(createQueueMatcher(['a*a'])('a'), 'no character belongs to two pieces')
})

t.test('a queue outside the patterns is reported as not found', async (t) => {
  t.throws(() => assertQueueAccess(unauthenticated, 'emails'), { code: 'QUEUE_NOT_FOUND' })
  t.doesNotThrow(() => assertQueueAccess(anonymous, 'emails'))
})
