/** Seeds jobs before a fuzz run, and verifies the service after it. */
import { isDeepStrictEqual } from 'node:util'
import { Queue, Worker } from 'bullmq'
import { Webhook } from 'standardwebhooks'
import type { Test } from 'tap'
import { eventually, type TestApp } from '../helpers/app.ts'
import type { TestRedis } from '../helpers/redis.ts'
import { createInjectClient } from './clients.ts'
import { ODD_KEY, ODD_QUEUE, QUEUES, SUBSCRIBED } from './special-values.ts'
import { queueSegment, type SubscriptionInvariants, show } from './subscription-invariants.ts'
import type { WebhookEndpoint } from './webhook-endpoint.ts'

/** Jobs of each queue for workers. */
const SEEDED_EACH = 30

/** Adds jobs in several states; a native worker processes two of them. */
export async function seed(app: TestApp, redis: TestRedis): Promise<void> {
  const add = (job: object) =>
    app.http.inject({
      ...{ method: 'POST', url: '/jobs', headers: { 'content-type': 'application/json' } },
      payload: JSON.stringify({ queue: 'fuzz', name: 'n', ...job }),
    })
  await add({ opts: { jobId: 'done' } })
  await add({ opts: { jobId: 'broke' } })
  const worker = new Worker(
    'fuzz',
    async ({ id }) => {
      if (id === 'broke') throw new Error('broke')
      return { sum: 3 }
    },
    { connection: { path: redis.socket, maxRetriesPerRequest: null }, prefix: app.prefix },
  )
  await eventually(async () => (await app.http.inject('/jobs/fuzz:done')).json().state === 'completed')
  await eventually(async () => (await app.http.inject('/jobs/fuzz:broke')).json().state === 'failed')
  await worker.close()
  for (const name of ['fuzz', ODD_QUEUE]) {
    const queue = new Queue(name, { connection: redis.client, prefix: app.prefix })
    await queue.add('n', {}, { jobId: ODD_KEY, delay: 3_600_000 })
  }
  await add({ opts: { jobId: 'seen' } })
  await add({ opts: { jobId: 'later', delay: 3_600_000 } })
  await add({ opts: { jobId: 'first', priority: 1 } })
  await add({ queue: 'default', opts: { jobId: 'plain' } })
  for (const queue of [...QUEUES, ...SUBSCRIBED]) {
    for (let i = 0; i < SEEDED_EACH; i++) await add({ queue, data: { i }, opts: { attempts: 3 } })
  }
}

/** Checks that deliveries were made and signed, and that running and stored subscriptions agree. */
export async function checkDeliveries(
  t: Test,
  app: TestApp,
  endpoint: WebhookEndpoint,
  { queues, secretsOf }: Pick<SubscriptionInvariants, 'queues' | 'secretsOf'>,
): Promise<void> {
  t.comment(`${endpoint.count()} deliveries`)
  t.ok(endpoint.count() > 0, 'jobs were delivered')
  t.same([...endpoint.faults], [], 'every delivery was well-formed')
  const unsigned = endpoint.received.filter(({ queue, headers, body }) => {
    return !secretsOf(queue).some((secret) => isSignedBy(secret, headers as Record<string, string>, body))
  })
  t.same(unsigned, [], 'every delivery was signed with a secret of its queue')
  const send = createInjectClient(app)
  // A subscription may be about to be paused, because its endpoint has just responded with 410.
  await eventually(async () => {
    const found = await Promise.all(queues().map((queue) => show(queue, send)))
    const shown = found.filter((one) => one !== undefined)
    const { webhooks } = (await app.http.inject('/stats')).json()
    const isConsistent = shown.every(({ paused, deliveries }) => (paused === null) === (deliveries !== null))
    return isConsistent && webhooks.subscriptions === shown.length
  }).then(
    () => t.pass('stored subscriptions are delivered, unless paused'),
    () => t.fail('running and stored subscriptions differ'),
  )
}

function isSignedBy(secret: string, headers: Record<string, string>, body: string): boolean {
  try {
    new Webhook(secret).verify(body, headers)
    return true
  } catch {
    return false
  }
}

/**
 * Checks that the service still works and that no waiter, delivery or event subscription is left. `subscribed`: queues
 * that may have a subscription; `waitedFor`: queues that may have had a pending take.
 */
export async function checkServiceState(
  t: Test,
  app: TestApp,
  subscribed: string[],
  waitedFor: Set<string>,
): Promise<void> {
  const get = async (url: string) => {
    const response = await app.http.inject(url)
    t.equal(response.statusCode, 200, `${url} ${response.statusCode === 200 ? '' : response.body}`)
    return response.json()
  }
  const post = async (url: string, body: object) => {
    const headers = { 'content-type': 'application/json' }
    return app.http.inject({ method: 'POST', url, headers, payload: JSON.stringify(body) })
  }
  for (const queue of subscribed) {
    const { statusCode } = await app.http.inject({
      method: 'DELETE',
      url: `/queues/${queueSegment(queue)}/subscription`,
    })
    t.ok([204, 404].includes(statusCode), `${queue} no longer has a subscription`)
  }
  await get('/health/live')
  const data = { to: 'ann@example.com', list: [1, null, 'é'] }
  const stored = await post('/jobs', { queue: 'after', name: 'n', data })
  t.equal(stored.statusCode, 201)
  const { id } = stored.json()
  t.match(await get(`/jobs/${id}?include=data`), { state: 'waiting', name: 'n', data })
  const [job] = (await post('/queues/after/leases', {})).json().jobs
  t.match(job, { id, name: 'n', data, attempt: 1 })
  const items = [{ lease: job.lease, outcome: 'complete', result: data }]
  t.match((await post('/leases/settle', { items, next: {} })).json(), {
    results: [{ status: 200, id }],
    jobs: [],
  })
  t.match(await get(`/jobs/${id}`), { state: 'completed', result: data })
  for (const queue of [...QUEUES, ...SUBSCRIBED, 'after'])
    await get(`/jobs?queue=${encodeURIComponent(queue)}`)
  // The events of a queue are followed for a minute after its last pending take.
  const followedQueues = new Set([...subscribed, ...waitedFor]).size
  const none = { waiting: 0, waitingWorkers: 0, webhooks: { subscriptions: 0, inFlight: 0 }, others: 0 }
  const left = async () => {
    const { waiting, waitingWorkers, webhooks, events } = (await app.http.inject('/stats')).json()
    const { subscriptions, inFlight } = webhooks
    const others = Math.max(0, events.subscribers - followedQueues)
    return { waiting, waitingWorkers, webhooks: { subscriptions, inFlight }, others }
  }
  const isOver = async () => isDeepStrictEqual(await left(), none)
  await eventually(isOver).catch(() => {})
  t.same(await left(), none, 'nothing is left')
  const { status, semaphore } = await get('/health/redis')
  t.not(status, 'fail')
  t.match(semaphore, { waiting: 0 })
}
