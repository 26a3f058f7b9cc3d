/** What our Lua relies on in BullMQ's commands: the order of the scripts, and where the base of the queue's keys is. */
import t from 'tap'
import { createCommandBuilder } from '../../../src/bullmq/command-builder.ts'
import { bullmqScript } from '../../../src/bullmq/script-source.ts'
import { loadScript } from '../../../src/redis/scripts/run-script.ts'

const BASE = 'p:q:'
/** What the builder takes for the time on Redis' clock. */
const NOW = 1_234_567
/** What the builder takes for the JSON text of a result or a progress. */
const VALUE = Buffer.from('12345678901234567890')
const bullmq = createCommandBuilder('p', () => NOW)

t.test('the table of scripts has the order of the includes', async (t) => {
  const { text, bullmqScripts } = loadScript('run-bullmq-commands')
  const [, table = ''] = /^local bullmqScripts = \{(.*)\}$/m.exec(text) ?? []
  t.same(
    table.split(', '),
    bullmqScripts.map((name) => `bullmq_${name}`),
  )
  t.equal(bullmqScripts.length, 8)
  for (const name of bullmqScripts) t.match(text, new RegExp(`^local function bullmq_${name}\\(\\)$`, 'm'))
})

t.test('every command that is sent has its script in the table', async (t) => {
  const { bullmqScripts } = loadScript('run-bullmq-commands')
  const lease = { queue: 'q', key: 'k', token: 't', opts: '{}', attemptsMade: 0, attemptsStarted: 1 }
  const retried = { ...lease, opts: '{"attempts":3}' }
  const backedOff = { ...lease, opts: '{"attempts":3,"backoff":{"type":"fixed","delay":5}}' }
  const error = { message: 'no' }
  const commands = [
    await bullmq.take({ queue: 'q', max: 1, leaseMs: 1, worker: undefined, rateLimit: undefined }, 't'),
    await bullmq.settle(lease, { outcome: 'complete', result: VALUE }, undefined),
    await bullmq.settle(lease, { outcome: 'retry', delayMs: 1 }, undefined),
    await bullmq.settle(lease, { outcome: 'release' }, undefined),
    await bullmq.settle(retried, { outcome: 'fail', error, unrecoverable: false }, undefined),
    await bullmq.settle(backedOff, { outcome: 'fail', error, unrecoverable: false }, undefined),
    await bullmq.log(lease, 'x'),
    ...(await bullmq.extend(lease, { leaseMs: 1, progress: VALUE, log: 'x' })),
  ]
  const dated = ['moveToActive', 'moveToFinished', 'moveToDelayed', 'retryJob']
  for (const { script, list } of commands) {
    const { keys } = bullmqScript(script)
    t.equal(list.slice(keys).includes(NOW), dated.includes(script), `${script} has the time of Redis`)
    const valued = ['moveToFinished', 'updateProgress'].includes(script)
    t.equal(list.slice(keys).includes(VALUE), valued, `${script} has the bytes of the value`)
    const isRecent = (value: unknown) => Math.abs(Number(value) - Date.now()) < 3_600_000
    t.notOk(list.some(isRecent), `${script} has no time of the machine`)
  }
  const names = new Set(commands.map(({ script }) => script))
  t.same([...names].sort(), [...bullmqScripts].sort())
})

t.test('the first argument of moveToActive is the base of the keys, meta among them', async (t) => {
  const options = { queue: 'q', max: 1, leaseMs: 1, worker: undefined, rateLimit: undefined }
  const { list } = await bullmq.take(options, 't')
  const { keys } = bullmqScript('moveToActive')
  t.equal(list[keys], BASE)
  t.ok(list.slice(0, keys).includes(`${BASE}meta`))
})

t.test('moveStalledJobsToWait has the base as its second argument, and a clock of our own', async (t) => {
  const options = { maxStalledCount: 1, intervalMs: 900, checkKey: 'own' }
  const { list } = await bullmq.recoverStalled('q', options)
  const { keys, content } = bullmqScript('moveStalledJobsToWait')
  t.equal(list[keys + 1], BASE)
  t.ok(list.slice(0, keys).includes(`${BASE}active`))
  t.notOk(list.includes(`${BASE}stalled-check`), 'native workers set that key')
  const [, position] = /KEYS\[(\d+)\] 'stalled-check'/.exec(content) ?? []
  t.equal(list[Number(position) - 1], 'own')
  t.equal(list[keys + 2], NOW)
})

t.test(
  'the bytes of a value are what BullMQ stores as the value, and nothing else is replaced',
  async (t) => {
    const lease = { queue: 'q', key: 'k', token: 't', opts: '{}', attemptsMade: 0, attemptsStarted: 1 }
    const finished = await bullmq.settle(lease, { outcome: 'complete', result: VALUE }, undefined)
    const { keys } = bullmqScript('moveToFinished')
    t.same(finished.list.slice(keys + 2, keys + 5), ['returnvalue', VALUE, 'completed'])
    const [, progress] = await bullmq.extend(lease, { leaseMs: 1, progress: VALUE, log: undefined })
    t.same(progress!.list.slice(bullmqScript('updateProgress').keys), ['k', VALUE])
  },
)
