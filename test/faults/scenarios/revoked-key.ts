/** X11: a key is revoked while its requests wait for jobs to work, for a job to finish, and for events. */
import { setMaxListeners } from 'node:events'
import { Queue } from 'bullmq'
import { attackBeside, openTarget, withChecks } from '../attacks.ts'
import { createDrain, type Drained } from '../raw-http.ts'
import { controlScale, type Finding, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep } from '../timing.ts'

const QUEUE = 'wanted'
const WAITING_OF_EACH = 10
/** The key file is looked at every second. */
const ENDED_MS = 2_000
/** On a machine with other load. */
const QUICK_ENDED_MS = 4_000
/** What has not ended by then is disconnected by the client. */
const PATIENCE_MS = 4_500

export const revokedKey: Scenario = {
  id: 'X11',
  fault: 'a key is revoked while it waits for jobs, statuses and events',
  run: (testbed, scale) => revoke(testbed, scale, true),
  controls: [
    {
      what: 'a key that is not revoked',
      misses: 'requests of a revoked key ended after',
      run: (testbed, scale) => revoke(testbed, controlScale(scale), false),
    },
  ],
}

async function revoke(testbed: Testbed, scale: Scale, isRevoked: boolean): Promise<Finding> {
  const target = await openTarget(testbed)
  const { redis, service, keysFile, attacker: headers } = target
  const queue = new Queue(QUEUE, { connection: redis.client })
  // Never worked: each waiting request would otherwise end.
  await new Queue('followed', { connection: redis.client }).add('n', {}, { jobId: 'one' })
  const drain = createDrain(testbed)
  const paths = [
    ['/jobs/followed:one?wait=30'],
    ['/jobs/followed:one/events'],
    ['/queues/followed/events'],
    [`/queues/${QUEUE}/leases`, '{"wait":30}'],
  ] as const
  let revokedAt = Number.POSITIVE_INFINITY
  const endedMs: number[] = []
  const handedOut: Drained[] = []
  let stillWaiting = 0
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const impatience = new AbortController()
    setMaxListeners(0, impatience.signal)
    const waiting = paths.flatMap(([path, body]) =>
      Array.from({ length: WAITING_OF_EACH }, async () => {
        const options = { headers, signal: impatience.signal, ...(body ? { body } : {}) }
        for (let isWaiting = true; isWaiting; ) {
          const response = await drain(service.url + path, options)
          // A wait of 30 seconds ends before the key is revoked in a long run.
          isWaiting = revokedAt > performance.now()
          if (isWaiting) continue
          endedMs.push(performance.now() - revokedAt)
          if (body && response.status === 200) handedOut.push(response)
        }
      }),
    )
    await sleep((seconds / 2) * 1_000)
    if (isRevoked)
      await testbed.command('cli/key', ['revoke', '--id', 'attacker'], { API_KEYS_FILE: keysFile })
    revokedAt = performance.now()
    await sleep(scale.isQuick ? QUICK_ENDED_MS / 2 : ENDED_MS)
    const giveUp = setTimeout(() => impatience.abort(), revokedAt + PATIENCE_MS - performance.now())
    // As many as wait for one.
    await queue.addBulk(Array.from({ length: WAITING_OF_EACH }, () => ({ name: 'n', data: {} })))
    await Promise.all(waiting)
    clearTimeout(giveUp)
    stillWaiting = await queue.getWaitingCount()
  })
  return withChecks(
    finding,
    [
      {
        what: 'requests of a revoked key ended after, most, ms',
        measured: Math.max(...endedMs),
        atMost: scale.isQuick ? QUICK_ENDED_MS : ENDED_MS,
      },
      { what: 'jobs handed to a revoked key', measured: handedOut.length, atMost: 0 },
      { what: 'jobs left to others', measured: stillWaiting, atLeast: WAITING_OF_EACH },
    ],
    { 'requests that waited': endedMs.length },
  )
}
