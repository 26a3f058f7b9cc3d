/** X2: clients that ask for large answers and never read them, and event streams that are not read. */
import { Queue } from 'bullmq'
import { attackBeside, openTarget, type Target, type TargetOptions, withChecks } from '../attacks.ts'
import { countSending, openMuteSocket, requestText } from '../raw-http.ts'
import { controlScale, type Finding, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const JOB_BYTES = 4_800_000
const READERS = 100
const FOLLOWERS = 20
/** MAX_BUFFERED_BYTES, what the answers were made from, and garbage. */
const MEMORY_MB = 400
/** How long a quick run waits for the service to disconnect them; other load may delay the answers. */
const QUICK_PATIENCE_MS = 4_000
/** Within this time at least one answer is being sent, on a machine with other load. */
const SENT_MS = 8_000
/** WRITE_TIMEOUT of a quick run, which is shorter than its default, ms. */
const QUICK_TIMEOUT_MS = 1_000

export const slowReaders: Scenario = {
  id: 'X2',
  fault: '100 clients ask for 4.8 MB each and never read, 20 never read their event streams',
  run: (testbed, scale) => neverRead(testbed, scale, {}),
  controls: [
    {
      what: 'a service that buffers whatever is not read',
      misses: 'ordinary requests not answered with 2xx',
      run: (testbed, scale) => neverRead(testbed, controlScale(scale), { isBoundless: true }),
    },
  ],
}

async function neverRead(testbed: Testbed, scale: Scale, options: TargetOptions): Promise<Finding> {
  const env = scale.isQuick ? { WRITE_TIMEOUT: `${QUICK_TIMEOUT_MS}` } : {}
  const target = await openTarget(testbed, { env, ...options })
  const { redis, service, attacker } = target
  const queue = new Queue('large', { connection: redis.client })
  await queue.add('n', 'd'.repeat(JOB_BYTES), { jobId: 'one' })
  let sending = 0
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const deadline = performance.now() + seconds * 1_000
    const sockets = Array.from({ length: READERS }, () => {
      const socket = openMuteSocket(testbed, service.url)
      socket.write(requestText('/jobs/large:one?include=data', attacker))
      return socket
    })
    if (!options.isBoundless) {
      for (let i = 0; i < FOLLOWERS; i++) {
        const socket = openMuteSocket(testbed, service.url)
        socket.write(requestText('/queues/large/events', attacker))
        sockets.push(socket)
      }
    }
    await Promise.all([
      changeResults(target, queue, deadline),
      // The control may run out of memory first.
      until('answers are sent', () => countSending(sockets) > 0, SENT_MS, 50).catch(() => {}),
    ])
    await sleep(Math.max(0, deadline - performance.now()))
    const patienceMs = scale.isQuick && !scale.isControl ? QUICK_PATIENCE_MS : 0
    await until('all are disconnected', () => countSending(sockets) === 0, patienceMs, 100).catch(() => {})
    sending = countSending(sockets)
    for (const socket of sockets) socket.destroy()
  })
  const { beforeMb, mostMb } = finding.attack
  return withChecks(
    finding,
    [
      { what: 'memory grown, MB', measured: mostMb - beforeMb, atMost: MEMORY_MB },
      { what: 'clients that never read and are still sent to', measured: sending, atMost: 0 },
    ],
    { 'clients that never read': READERS + FOLLOWERS },
  )
}

/** Events of 100 KB for the followers. */
async function changeResults({ redis }: Target, queue: Queue, deadline: number): Promise<void> {
  const progress = 'p'.repeat(100_000)
  for (let sent = 0; performance.now() < deadline && sent < 200; sent++) {
    await redis.client.xadd(
      queue.toKey('events'),
      ...['MAXLEN', '~', '100', '*', 'event', 'progress', 'jobId', 'one', 'data', JSON.stringify(progress)],
    )
    await sleep(10)
  }
}
