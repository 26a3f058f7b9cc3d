/** drain() sees every job in any state, runs each, and finds incomplete jobs. */
import { Queue } from 'bullmq'
import t, { type Test } from 'tap'
import { drain } from './drain.ts'
import { createTestbed } from './testbed.ts'

async function open(t: Test) {
  const testbed = createTestbed('src/server.ts')
  t.teardown(() => testbed.end())
  const redis = await testbed.redis()
  const queue = new Queue('q', { connection: redis.client })
  const add = (jobId: string, opts: object = {}) => queue.add('n', { payload: jobId }, { jobId, ...opts })
  return { redis, queue, add }
}

t.test('jobs in every state are seen, and each waiting one runs once', async (t) => {
  const { redis, add } = await open(t)
  await add('plain')
  await add('again')
  await add('again')
  await add('urgent', { priority: 3 })
  await add('later', { delay: 300 })
  const { jobs, executions, broken } = await drain(redis, ['q', 'empty'])
  t.same([...jobs.keys()].sort(), ['again', 'later', 'plain', 'urgent'])
  t.same([...executions.values()], [1, 1, 1, 1])
  t.same([...jobs.get('plain')!], ['q:plain'])
  t.same(broken, [])
})

t.test('two jobs with the same payload are counted as two', async (t) => {
  const { redis, queue } = await open(t)
  for (const jobId of ['one', 'other']) await queue.add('n', { payload: 'same' }, { jobId })
  const { jobs, executions } = await drain(redis, ['q'])
  t.same([...jobs.get('same')!].sort(), ['q:one', 'q:other'])
  t.equal(executions.get('same'), 2)
})

t.test('a job in no state and a state without a job are incomplete', async (t) => {
  const { redis, add } = await open(t)
  for (const id of ['whole', 'listless', 'bodyless']) await add(id)
  await redis.client.lrem('bull:q:wait', 0, 'listless')
  await redis.client.lrem('bull:q:wait', 0, 'bodyless')
  await redis.client.zadd('bull:q:completed', 1, 'bodyless')
  await redis.client.del('bull:q:bodyless')
  const { broken, executions } = await drain(redis, ['q'])
  t.same([...new Set(broken)].sort(), ['q:bodyless', 'q:listless'])
  t.same([...executions.keys()], ['whole'])
})
