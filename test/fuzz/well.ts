/** What is there before a fuzz run, and what must be well after it. */
import { isDeepStrictEqual } from 'node:util'
import { Worker } from 'bullmq'
import { Webhook } from 'standardwebhooks'
import type { Test } from 'tap'
import { eventually, type TestApp } from '../helpers/app.ts'
import type { TestRedis } from '../helpers/redis.ts'
import { injecting } from './clients.ts'
import type { HookReceiver } from './receiver.ts'
import { HOOKED, QUEUES } from './special.ts'
import { type SubscriptionPromises, show } from './subscription-promises.ts'

/** For those who ask for jobs. */
const SEEDED_EACH = 30

/** Jobs in several states, two of them worked off by a native worker. */
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
  await add({ opts: { jobId: 'seen' } })
  await add({ opts: { jobId: 'later', delay: 3_600_000 } })
  await add({ opts: { jobId: 'first', priority: 1 } })
  await add({ queue: 'default', opts: { jobId: 'plain' } })
  for (const queue of [...QUEUES, ...HOOKED]) {
    for (let i = 0; i < SEEDED_EACH; i++) await add({ queue, data: { i }, opts: { attempts: 3 } })
  }
}

/** What was subscribed was sent, as it should be; and what is kept of each is what is done. */
export async function areDelivered(
  t: Test,
  app: TestApp,
  receiver: HookReceiver,
  { queues, secretsOf }: Pick<SubscriptionPromises, 'queues' | 'secretsOf'>,
): Promise<void> {
  t.comment(`${receiver.count()} deliveries`)
  t.ok(receiver.count() > 0, 'jobs were delivered')
  t.same([...receiver.faults], [], 'and each as it should be')
  const unsigned = receiver.received.filter(({ queue, headers, body }) => {
    return !secretsOf(queue).some((secret) => isSignedBy(secret, headers as Record<string, string>, body))
  })
  t.same(unsigned, [], 'signed with a secret of its queue')
  const ask = injecting(app)
  // One may be about to be paused, because its receiver has just said so.
  await eventually(async () => {
    const found = await Promise.all(queues().map((queue) => show(queue, ask)))
    const shown = found.filter((one) => one !== undefined)
    const { webhooks } = (await app.http.inject('/stats')).json()
    const areSent = shown.every(({ paused, deliveries }) => (paused === null) === (deliveries !== null))
    return areSent && webhooks.subscriptions === shown.length
  }).then(
    () => t.pass('what is kept is sent, unless it is paused'),
    () => t.fail('what is kept is not what is sent'),
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
 * After all of that it works as it did, and nothing is left of it. `subscribed`: queues that may have a subscription,
 * `waitedFor`: where somebody may have waited for a job.
 */
export async function isWell(
  t: Test,
  app: TestApp,
  subscribed: string[],
  waitedFor: Set<string>,
): Promise<void> {
  const get = async (url: string) => {
    const answer = await app.http.inject(url)
    t.equal(answer.statusCode, 200, `${url} ${answer.statusCode === 200 ? '' : answer.body}`)
    return answer.json()
  }
  const post = async (url: string, body: object) => {
    const headers = { 'content-type': 'application/json' }
    return app.http.inject({ method: 'POST', url, headers, payload: JSON.stringify(body) })
  }
  for (const queue of subscribed) {
    const { statusCode } = await app.http.inject({ method: 'DELETE', url: `/queues/${queue}/subscription` })
    t.ok([204, 404].includes(statusCode), `${queue} has no subscription any more`)
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
  for (const queue of [...QUEUES, ...HOOKED, 'after']) await get(`/jobs?queue=${queue}`)
  // A queue is listened to for a minute after the last one who waited for its jobs.
  const lines = new Set([...subscribed, ...waitedFor]).size
  const nobody = { waiting: 0, waitingWorkers: 0, webhooks: { subscriptions: 0, inFlight: 0 }, others: 0 }
  const left = async () => {
    const { waiting, waitingWorkers, webhooks, events } = (await app.http.inject('/stats')).json()
    const { subscriptions, inFlight } = webhooks
    const others = Math.max(0, events.subscribers - lines)
    return { waiting, waitingWorkers, webhooks: { subscriptions, inFlight }, others }
  }
  const isOver = async () => isDeepStrictEqual(await left(), nobody)
  await eventually(isOver).catch(() => {})
  t.same(await left(), nobody, 'nobody is there any more')
  const { status, semaphore } = await get('/health/redis')
  t.not(status, 'fail')
  t.match(semaphore, { waiting: 0 })
}
