/** What a watch says at the moment of handing out, on a bare app whose key and connection change when a test says so. */
import Fastify, { type FastifyReply } from 'fastify'
import t, { type Test } from 'tap'
import { type Access, anonymous } from '../../../src/auth/access.ts'
import { createClientSockets } from '../../../src/http/clients/client-sockets.ts'
import { type ClientWatch, createWaits, waitsPlugin } from '../../../src/http/clients/waits.ts'
import { eventually } from '../../helpers/app.ts'
import { openRawClient } from '../../helpers/raw-client.ts'

async function open(t: Test) {
  const app = Fastify({ forceCloseConnections: true })
  const key = { isInForce: true, mayContinue: false }
  const sockets = createClientSockets({ writeTimeoutMs: 60_000 })
  sockets.watch(app.server)
  const waits = createWaits({
    sockets,
    isInForce: () => key.isInForce,
    maxPerConnection: 100,
    maxPerKey: 100,
    max: 100,
  })
  app.decorateRequest('access', null as unknown as Access)
  app.decorateRequest('mayContinue', () => key.mayContinue)
  app.addHook('onRequest', async (request) => {
    request.access = anonymous
  })
  await app.register(waitsPlugin, { waits })
  const begun: { watch: ClientWatch; reply: FastifyReply }[] = []
  app.get('/', (_request, reply) => {
    begun.push({ watch: reply.beginDelivery(), reply })
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => {
    sockets.close()
    waits.close()
    return app.close()
  })
  const { port } = app.server.address() as { port: number }
  /** Sends that many requests on one connection, and returns the watch of the last. */
  const begin = async (requests = 1) => {
    const client = await openRawClient(t, port)
    client.send(...Array.from({ length: requests }, () => ({ path: '/' })))
    const wanted = begun.length + requests
    await eventually(() => begun.length === wanted)
    return { client, ...begun.at(-1)! }
  }
  return { key, begin }
}

t.test(
  'a key that is no longer in force is found at the moment of handing out, before any sweep',
  async (t) => {
    const { key, begin } = await open(t)
    const { watch } = await begin()
    t.ok(watch.canDeliver())
    key.isInForce = false
    t.notOk(watch.canDeliver())
    t.ok(watch.signal.aborted)
    t.match(watch.refusal(), { code: 'UNAUTHORIZED' })
    key.isInForce = true
    t.notOk(watch.canDeliver(), 'also later')
  },
)

t.test('a changed key that still permits the request does not end it', async (t) => {
  const { key, begin } = await open(t)
  const { watch } = await begin()
  key.isInForce = false
  key.mayContinue = true
  t.ok(watch.canDeliver())
  t.equal(watch.refusal(), undefined)
})

t.test('a client that has closed cannot be delivered to, however deep its request is queued', async (t) => {
  const { begin } = await open(t)
  for (const requests of [1, 2, 5]) {
    const { client, watch } = await begin(requests)
    client.socket.destroy()
    await eventually(() => watch.signal.aborted)
    t.notOk(watch.canDeliver())
    t.equal(watch.refusal(), undefined, 'no answer is needed')
  }
})

t.test('the signal is not aborted once the answer was sent', async (t) => {
  const { begin } = await open(t)
  const { client, watch, reply } = await begin()
  reply.send('done')
  await eventually(() => client.responses().length === 1)
  client.socket.destroy()
  await new Promise((resolve) => reply.request.raw.socket.once('close', resolve))
  t.notOk(watch.signal.aborted)
})

t.test('until() settles with the result, or with the refusal, after calling `leave`', async (t) => {
  const { key, begin } = await open(t)
  const { watch } = await begin()
  t.equal(await watch.until(Promise.resolve(7), t.fail), 7)
  await t.rejects(watch.until(Promise.reject(new Error('failed')), t.fail), { message: 'failed' })
  let left = 0
  const refused = watch.until(new Promise(() => {}), () => left++)
  key.isInForce = false
  await t.rejects(refused, { code: 'UNAUTHORIZED' }, 'by the sweep')
  t.equal(left, 1)
})
