/** Refused requests: all are counted, and a flood writes a bounded number of lines. */
import { Writable } from 'node:stream'
import { pino } from 'pino'
import t from 'tap'
import { createRefusals } from '../../src/http/refusals.ts'
import { eventually, startApp } from '../helpers/app.ts'
import { openRawClient } from '../helpers/raw-client.ts'
import { startRedis } from '../helpers/redis.ts'

function recordingLog() {
  const lines: Record<string, unknown>[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)))
      done()
    },
  })
  return { lines, log: pino({ level: 'info' }, stream) }
}

t.test('a flood writes 20 lines of each code a second, and then how many were left out', async (t) => {
  const { lines, log } = recordingLog()
  const refusals = createRefusals(log)
  t.teardown(refusals.close)
  for (let i = 0; i < 10_000; i++) refusals.note('UNAUTHORIZED')?.info('one')
  for (let i = 0; i < 3; i++) refusals.note('INTERNAL')?.error('rare')
  t.same(refusals.counts(), { UNAUTHORIZED: 10_000, INTERNAL: 3 })
  t.equal(lines.filter(({ msg }) => msg === 'one').length, 20)
  t.equal(lines.filter(({ msg }) => msg === 'rare').length, 3, 'a flood of one code hides no other')
  await eventually(() => lines.length > 23)
  t.match(lines.slice(23), [{ code: 'UNAUTHORIZED', leftOut: 9_980 }])
  refusals.note('UNAUTHORIZED')?.info('one')
  t.equal(lines.filter(({ msg }) => msg === 'one').length, 21, 'the next second begins anew')
})

t.test('close() writes what was left out; without a log everything is still counted', async (t) => {
  const { lines, log } = recordingLog()
  const refusals = createRefusals(log)
  for (let i = 0; i < 21; i++) refusals.note('RATE_LIMITED')
  refusals.close()
  t.match(lines, [{ code: 'RATE_LIMITED', leftOut: 1 }])
  const silent = createRefusals(undefined)
  t.equal(silent.note('INTERNAL'), undefined)
  t.same(silent.counts(), { INTERNAL: 1 })
})

t.test('GET /stats counts refused requests by code, also those that are not HTTP', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  await app.http.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.http.server.address() as { port: number }
  const client = await openRawClient(t, port)
  client.socket.write('not http\r\n\r\n')
  await eventually(client.isClosed)
  for (let i = 0; i < 3; i++) await app.http.inject('/nowhere')
  const { refused } = (await app.http.inject('/stats')).json()
  t.match(refused, { BAD_HTTP: 1, ROUTE_NOT_FOUND: 3 })
})
