/** Every large answer takes a turn, for each way in which a route can send or render it. */
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { createClientSockets } from '../../../src/http/clients/client-sockets.ts'
import { createSendBudget, sendBudgetPlugin } from '../../../src/http/clients/send-budget.ts'
import { createGetMany } from '../../../src/jobs/status/get-many.ts'
import type { StatusCache } from '../../../src/jobs/status/status-cache.ts'
import { PACED_BYTES } from '../../../src/paced-turns.ts'

/** Turns that the test grants. */
function createManualTurns() {
  const grants: (() => void)[] = []
  const asked: (() => void)[] = []
  return {
    turns: {
      take: () =>
        new Promise<void>((resolve) => {
          grants.push(resolve)
          for (const listener of asked.splice(0)) listener()
        }),
    },
    waiting: () => grants.length,
    isAsked: () => new Promise<void>((resolve) => asked.push(resolve)),
    grant: () => grants.shift()?.(),
  }
}

async function open(t: Test) {
  const manual = createManualTurns()
  const sockets = createClientSockets({ writeTimeoutMs: 30_000 })
  const app = Fastify()
  t.teardown(async () => {
    sockets.close()
    await app.close()
  })
  await app.register(sendBudgetPlugin, {
    sockets,
    budget: createSendBudget(sockets, 134_217_728),
    turns: manual.turns,
  })
  const textOf = (request: { query: unknown }) =>
    'x'.repeat(Number((request.query as { bytes: string }).bytes))
  app.get('/hook', (request, reply) => reply.send(textOf(request)))
  app.get('/counted', { config: { countsBytes: true } }, (request, reply) =>
    reply.sendCounted(textOf(request)),
  )
  return { app, ...manual }
}

for (const path of ['/hook', '/counted']) {
  t.test(`${path}: a large answer is sent in its turn, a smaller one at once`, async (t) => {
    const { app, waiting, isAsked, grant } = await open(t)
    const small = await app.inject(`${path}?bytes=${PACED_BYTES - 1}`)
    t.equal(small.body.length, PACED_BYTES - 1)
    const asked = isAsked().then(() => 'it asks for a turn')
    let isSent = false
    const large = app.inject(`${path}?bytes=${PACED_BYTES}`).then((response) => {
      isSent = true
      return response
    })
    const first = await Promise.race([asked, large.then(() => 'it is sent without a turn')])
    if (!t.equal(first, 'it asks for a turn', 'a large answer asks for a turn')) return
    t.equal(waiting(), 1)
    // A whole request later it still waits.
    await app.inject(`${path}?bytes=1`)
    t.notOk(isSent, 'it is sent only in its turn')
    grant()
    t.equal((await large).body.length, PACED_BYTES)
  })
}

t.test('several cached jobs are joined in a turn once they are large together', async (t) => {
  const { turns, waiting, grant } = createManualTurns()
  const body = `{"data":"${'x'.repeat(PACED_BYTES)}"}`
  const job = { body, etag: '"e"', bytes: body.length, finished: true, brief: undefined }
  const found = { job, source: 'hit', position: '0-0', ttlMs: 1, degraded: false }
  const statusCache = { maxAnswerBytes: 8_388_608, peek: () => found } as unknown as StatusCache
  const budget = { hold: () => Promise.reject(new Error('nothing is read')), stats: () => ({}) as never }
  const getMany = createGetMany(statusCache, budget, turns)
  const joined = getMany([{ queue: 'q', key: 'a' }], { data: true, logs: false }, false)
  t.equal(waiting(), 1)
  grant()
  t.equal((await joined).body, `{"jobs":[${body}]}`)
})
