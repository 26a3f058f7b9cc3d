/** Checks of more streams than one inspection covers report every gap once. */
import t from 'tap'
import { inspectStreams } from '../../../src/redis/scripts/inspect-streams.ts'
import { createGapDetector, type WatchedStream } from '../../../src/redis/streams/gap-detector.ts'
import { startRedis, uniquePrefix } from '../../helpers/redis.ts'
import { addEntries } from '../../helpers/streams.ts'

const redis = await startRedis()
const { client } = redis
t.teardown(() => redis.stop())

async function setUp(count: number) {
  const prefix = uniquePrefix()
  const streams = new Map<string, WatchedStream>()
  const watch = async (name: string | number, joined = true) => {
    const ids = await addEntries(client, `${prefix}:${name}`, 2)
    streams.set(`${prefix}:${name}`, {
      position: ids.at(-1)!,
      joined,
      broken: false,
      eventless: false,
      keptChecks: 0,
      unverifiedSince: undefined,
    })
  }
  for (let i = 0; i < count; i++) await watch(i)
  let failIn = 0
  const checkStreams = createGapDetector(async (keys) => {
    if (failIn-- === 1) throw new Error('LOADING Redis is loading the dataset in memory')
    return inspectStreams(client, `${prefix}::epoch`, keys)
  })
  return {
    watch,
    key: (name: string | number) => `${prefix}:${name}`,
    check: async () => (await checkStreams(streams)).gaps,
    /** Fails the inspection that is `calls` inspections away. */
    failIn: (calls: number) => {
      failIn = calls
    },
  }
}

t.test('a flush is reported once for each stream', async (t) => {
  const { check } = await setUp(150)
  t.same(await check(), [])
  await client.flushall()
  const gaps = await check()
  t.equal(gaps.length, 150)
  t.ok(gaps.every(([, gap]) => gap === 'flushed'))
  t.same(await check(), [])
})

t.test('a stream that is not part of a read yet is reported as vanished after a flush', async (t) => {
  const { watch, check, key } = await setUp(1)
  await check()
  await watch('new', false)
  await client.flushall()
  t.same(await check(), [
    [key(0), 'flushed'],
    [key('new'), 'vanished'],
  ])
})

t.test('after a check that fails halfway, the next check still reports the gap', async (t) => {
  const { check, key, failIn } = await setUp(150)
  await check()
  await client.del(key(0))
  failIn(2)
  await t.rejects(check(), { message: /^LOADING/ })
  t.same(await check(), [[key(0), 'vanished']])
})
