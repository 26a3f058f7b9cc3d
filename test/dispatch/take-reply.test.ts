/** What the replies of BullMQ's scripts mean: empty takes, revised limits, refused settlements, lost leases. */
import t from 'tap'
import { recheckDelay } from '../../src/dispatch/stalled-recovery.ts'
import { EMPTY_TAKE, extendErrorOf, parseTakeReply, settleErrorOf } from '../../src/dispatch/take-reply.ts'
import { createStoredJson } from '../../src/json/stored-json.ts'
import { type CommandReply, LIMIT_REVISED } from '../../src/redis/scripts/run-bullmq-commands.ts'

const reply = (value: unknown, isBounded = false) => ({ reply: value, isBounded })
const taken = (id: string, ...fields: (string | Buffer)[]) => {
  const hash = ['name', 'n', 'data', '{"a":1}', 'timestamp', '5', 'atm', '1', ...fields]
  return reply([hash.map((text) => Buffer.from(text as string)), Buffer.from(id), 0, 0])
}
const json = createStoredJson()
const parseReply = (runs: CommandReply[]) => parseTakeReply('q', 't', runs, json)

t.test('a reply without runs means that the worker is at its limit', async (t) => {
  t.match(parseReply([]), { jobs: [], isLimitReached: true, isLimitRevised: false })
})

t.test('an empty run says when to take again', async (t) => {
  const parsed = parseReply([reply([0, 0, 250, 1_700_000_000_000], true)])
  t.match(parsed, { ...EMPTY_TAKE, limitedMs: 250, nextAtMs: 1_700_000_000_000, isBounded: true })
})

t.test('a revised limit is a result, any other error of the first run is thrown', async (t) => {
  t.match(parseReply([{ error: LIMIT_REVISED }]), { jobs: [], isLimitRevised: true })
  t.throws(() => parseReply([{ error: 'ERR broken' }]), { code: 'INTERNAL' })
  const { jobs } = parseReply([taken('a'), { error: 'ERR broken' }])
  t.same(
    jobs.map(({ key }) => key),
    ['a'],
    'jobs of earlier runs are leased',
  )
})

t.test('jobs of schedulers and jobs that must not be worked are separated from the others', async (t) => {
  const parsed = parseReply([taken('s', 'rjk', 'every'), taken('d', 'defa', 'a child failed')])
  t.match(
    parsed.scheduled.map(({ lease }) => lease.key),
    ['s'],
  )
  t.match(parsed.rejected, [
    { lease: { key: 'd' }, outcome: { outcome: 'fail', error: { message: 'a child failed' } } },
  ])
})

t.test('data come out as the bytes that are stored, and as a JSON string if they are not JSON', async (t) => {
  const dataOf = (stored: string | Buffer) =>
    parseReply([taken('a', 'data', stored)]).jobs[0]?.data.toString()
  for (const text of ['{"b":9007199254740993,"a":[-0,1e400,1.50],"b":"\\u00e9é"}', ' [1,\r\n2]\t', '0'])
    t.equal(dataOf(text), text)
  t.equal(dataOf(''), '{}', 'no data')
  t.equal(dataOf('O:8:"stdClass":0:{}'), '"O:8:\\"stdClass\\":0:{}"')
  t.equal(dataOf(Buffer.from([0x7b, 0xff])), '"{\ufffd"', 'not UTF-8')
  t.equal(dataOf('['.repeat(1_001)), `"${'['.repeat(1_001)}"`)
  const deep = `${'['.repeat(1_001)}${']'.repeat(1_001)}`
  t.equal(dataOf(deep), `"${deep}"`, 'too deep')
})

t.test('a refused settlement has the error that belongs to its code', async (t) => {
  t.equal(settleErrorOf(reply(0)), undefined)
  t.match(settleErrorOf(reply(-1)), { code: 'JOB_NOT_FOUND' })
  t.match(settleErrorOf(reply(-4)), { code: 'WRONG_STATE' })
  t.match(settleErrorOf(reply(-9)), { code: 'WRONG_STATE' })
  t.match(settleErrorOf(reply(-2)), { code: 'LEASE_LOST' })
})

t.test('an extension without a lock is LEASE_LOST, and a failed write of it is an error', async (t) => {
  t.equal(extendErrorOf([reply(1), reply(0)]), undefined)
  t.match(extendErrorOf([reply(0), undefined]), { code: 'LEASE_LOST' })
  t.match(extendErrorOf([reply(1), reply(-1)]), { code: 'JOB_NOT_FOUND' })
})

t.test('the next check for stalled jobs follows the first lock that expires', async (t) => {
  t.equal(recheckDelay({ activeCount: 0, firstExpiryMs: -1 }), undefined)
  t.equal(recheckDelay({ activeCount: 1, firstExpiryMs: -1 }), 1_000, 'a job without a lock')
  t.equal(recheckDelay({ activeCount: 1, firstExpiryMs: 20 }), 1_000)
  t.equal(recheckDelay({ activeCount: 1, firstExpiryMs: 5_000 }), 5_050)
  t.equal(recheckDelay({ activeCount: 1, firstExpiryMs: 86_400_000 }), 30_000)
})
