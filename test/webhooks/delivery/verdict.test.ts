/** What an endpoint's response means for the job. */
import t from 'tap'
import { createJudge } from '../../../src/webhooks/delivery/verdict.ts'
import type { DeliveryResult } from '../../../src/webhooks/endpoints/webhook-client.ts'

const judge = createJudge()
const now = Date.parse('2026-01-15T12:00:00Z')
const DAY_MS = 86_400_000

function response(status: number, contentType?: string, body?: string, retryAfter?: string): DeliveryResult {
  return {
    status,
    retryAfter,
    contentType,
    body: body === undefined ? body : Buffer.from(body),
    isCut: false,
    ms: 12,
  }
}

const completeWith = (text: string) => ({ kind: 'complete', result: Buffer.from(text) })
const json = (status: number, body: string) => response(status, 'application/json', body)

t.test('2xx completes the job, and a JSON body is its result', async (t) => {
  const result = { sent: true, ids: [1, 2], to: 'Zoë' }
  for (const status of [200, 201, 202, 204, 206, 299]) {
    t.same(judge(json(status, JSON.stringify(result)), now), completeWith(JSON.stringify(result)))
  }
  const types = [
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/problem+json ;a=b',
    'model/a+json',
  ]
  for (const type of types) t.same(judge(response(200, type, '[1]'), now), completeWith('[1]'), type)
  for (const body of ['0', '""', 'false', 'null']) {
    t.same(judge(json(200, body), now), completeWith(body))
  }
})

t.test('a result keeps the text that the endpoint sent, but for white space between tokens', async (t) => {
  const text = '{"b":9007199254740993,"a":[-0,1e400,1.50],"b":"\\u00e9\\/ é  ","é":{}}'
  const sent = `\ufeff \n${text.replaceAll(',', ' ,\r\n\t').replaceAll(':', ': ')} `
  t.same(judge(json(200, sent), now), completeWith(text))
})

t.test('a body that cannot be stored completes the job without a result', async (t) => {
  const withoutResult = completeWith('null')
  t.same(judge(response(204), now), withoutResult, 'no body')
  t.same(judge(response(200, undefined, '{"a":1}'), now), withoutResult, 'no content type')
  for (const body of ['', '{', 'OK', '{"a":1}x', 'undefined'])
    t.same(judge(json(200, body), now), withoutResult, body)
  for (const type of ['text/plain', 'text/html', 'application/jsonp', 'application/x-json', 'json', '']) {
    t.same(judge(response(200, type, '{"a":1}'), now), withoutResult, type)
  }
  const cut: DeliveryResult = {
    status: 200,
    retryAfter: undefined,
    contentType: 'application/json',
    body: undefined,
    isCut: true,
    ms: 1,
  }
  t.same(judge(cut, now), withoutResult, 'too long')
  t.same(judge(json(200, '{"__proto__":{"a":1}}'), now), withoutResult, 'contains __proto__')
  t.same(
    judge(json(200, '{"constructor":{"prototype":1}}'), now),
    withoutResult,
    'contains constructor.prototype',
  )
})

t.test('a result may be 64 levels deep; a deeper one is dropped', async (t) => {
  const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)
  t.same(judge(json(200, nested(64)), now), completeWith(nested(64)))
  for (const levels of [65, 1_000, 400_000]) {
    t.same(judge(json(200, nested(levels)), now), completeWith('null'), `${levels} levels`)
  }
})

t.test('a temporary failure is retried', async (t) => {
  for (const status of [408, 425, 429, 500, 501, 502, 503, 504, 511, 599, 999]) {
    const reason = `answered ${status} in 12 ms`
    t.same(judge(response(status), now), { kind: 'retry', reason, afterMs: undefined }, `${status}`)
  }
  const noResponse = { status: undefined, reason: 'connection refused', ms: 3 }
  t.same(judge({ ...noResponse, isUnsent: false }, now), {
    kind: 'retry',
    reason: 'connection refused',
    afterMs: undefined,
  })
})

t.test('a delivery that could not start is postponed', async (t) => {
  const reason = 'The name a.test was not resolved in time.'
  t.same(judge({ status: undefined, reason, isUnsent: true, ms: 3 }, now), { kind: 'postpone', reason })
})

t.test('410 ends the subscription', async (t) => {
  t.same(judge(response(410), now), { kind: 'gone', reason: 'answered 410 in 12 ms' })
})

t.test('other 4xx and redirects fail the job permanently', async (t) => {
  for (const status of [400, 401, 403, 404, 405, 409, 411, 413, 415, 422, 426, 428, 431, 451, 499]) {
    t.same(judge(response(status), now), { kind: 'fail', reason: `answered ${status} in 12 ms` }, `${status}`)
  }
  for (const status of [300, 301, 302, 303, 304, 307, 308]) {
    const reason = `answered ${status} in 12 ms; redirects are not followed`
    t.same(judge(response(status), now), { kind: 'fail', reason }, `${status}`)
  }
})

t.test('Retry-After is seconds or a date in one of its three forms, from 0 to 24 h', async (t) => {
  const delays: Record<string, number | undefined> = {
    '0': 0,
    '1': 1_000,
    '120': 120_000,
    ' 5 ': 5_000,
    '007': 7_000,
    '86400': DAY_MS,
    '86401': DAY_MS,
    '99999999999999999999999': DAY_MS,
    ['9'.repeat(400)]: DAY_MS,
    'Thu, 15 Jan 2026 12:00:30 GMT': 30_000,
    'Thu, 15 Jan 2026 11:59:00 GMT': 0,
    'Sun, 06 Nov 1994 08:49:37 GMT': 0,
    'Sat, 01 Jan 2028 00:00:00 GMT': DAY_MS,
    'Thursday, 15-Jan-26 12:01:00 GMT': 60_000,
    'Thu Jan 15 12:02:00 2026': 120_000,
    'Fri Jan  9 12:02:00 2026': 0,
    '': undefined,
    '-1': undefined,
    '-5': undefined,
    '+5': undefined,
    '1.5': undefined,
    '1e3': undefined,
    '0x10': undefined,
    '10s': undefined,
    '5, 10': undefined,
    '٣': undefined,
    Infinity: undefined,
    soon: undefined,
    '2026-01-15T12:00:30Z': undefined,
    '15 Jan 2026': undefined,
    'Thu, 15 Jan 2026 12:00:30 +0100': undefined,
    'Thu, 15 Jan 2026 12:00:30': undefined,
    'Thu, 45 Jan 2026 12:00:30 GMT': undefined,
    'Thu, 15 Foo 2026 12:00:30 GMT': undefined,
    'Thu, 15 Jan 2026 25:00:30 GMT': undefined,
  }
  for (const [text, afterMs] of Object.entries(delays)) {
    t.match(
      judge(response(503, undefined, undefined, text), now),
      { kind: 'retry', afterMs },
      JSON.stringify(text),
    )
    const verdict = judge(response(429, undefined, undefined, text), now)
    t.equal(verdict.kind === 'retry' && verdict.afterMs, afterMs, JSON.stringify(text))
  }
})

t.test('a reason quotes the first 200 characters of a textual body, on one line', async (t) => {
  const reasonOf = (type: string, body: string | undefined) => {
    const verdict = judge(response(503, type, body), now)
    return verdict.kind === 'retry' ? verdict.reason : undefined
  }
  const summary = 'answered 503 in 12 ms'
  t.equal(reasonOf('text/plain', 'Too busy'), `${summary}: Too busy`)
  t.equal(
    reasonOf('application/problem+json', '{\n  "title": "Busy"\r\n}\n'),
    `${summary}: { "title": "Busy" }`,
  )
  t.equal(reasonOf('text/plain', 'a\u0000b\u001b[31mc'), `${summary}: a b [31mc`)
  t.equal(reasonOf('text/plain; charset=utf-8', 'x'.repeat(201)), `${summary}: ${'x'.repeat(200)}`)
  t.equal(reasonOf('text/plain', '𝄞'.repeat(201)), `${summary}: ${'𝄞'.repeat(200)}`)
  for (const body of ['', ' \n ', undefined]) t.equal(reasonOf('text/plain', body), summary)
  t.equal(reasonOf('application/octet-stream', 'abc'), summary)
  t.equal(reasonOf('', 'abc'), summary)
  const moved = judge(response(302, 'text/plain', 'Moved'), now)
  t.match(moved, { kind: 'fail', reason: 'answered 302 in 12 ms; redirects are not followed: Moved' })
})
