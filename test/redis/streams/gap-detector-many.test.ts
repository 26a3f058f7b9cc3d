/** A look at more streams than one call of the script takes: what it finds is told whole, and once. */
import t from 'tap'
import { inspectStreamsScript, runScript } from '../../../src/redis/scripts/run-script.ts'
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
      doubtfulSince: undefined,
    })
  }
  for (let i = 0; i < count; i++) await watch(i)
  let failIn = 0
  const check = createGapDetector(`${prefix}::epoch`, async (keys, args) => {
    if (failIn-- === 1) throw new Error('LOADING Redis is loading the dataset in memory')
    return runScript(client, inspectStreamsScript, keys, args)
  })
  return {
    watch,
    key: (name: string | number) => `${prefix}:${name}`,
    look: async () => (await check(streams)).found,
    /** The call that many calls from now is answered with an error. */
    failIn: (calls: number) => {
      failIn = calls
    },
  }
}

t.test('a flush is told of each stream once', async (t) => {
  const { look } = await setUp(150)
  t.same(await look(), [])
  await client.flushall()
  const found = await look()
  t.equal(found.length, 150)
  t.ok(found.every(([, finding]) => finding === 'flushed'))
  t.same(await look(), [])
})

t.test(
  'a stream that is not read yet, but from a place, is told to have vanished in the flush',
  async (t) => {
    const { watch, look, key } = await setUp(1)
    await look()
    await watch('new', false)
    await client.flushall()
    t.same(await look(), [
      [key(0), 'flushed'],
      [key('new'), 'vanished'],
    ])
  },
)

t.test('a look that fails half-way forgets nothing: the next one tells it', async (t) => {
  const { look, key, failIn } = await setUp(150)
  await look()
  await client.del(key(0))
  failIn(2)
  await t.rejects(look(), { message: /^LOADING/ })
  t.same(await look(), [[key(0), 'vanished']])
})
