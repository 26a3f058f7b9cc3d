/** K1: sustained load below capacity, with a native worker and readers. Memory and handles must not grow. */
import { check, percentile, slopePerHour } from '../checker.ts'
import { countsOf, toChecks } from '../client-groups.ts'
import { enqueue } from '../clients.ts'
import { startDrain } from '../drain.ts'
import { createHistory, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import { type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep } from '../timing.ts'

const QUEUE = 'soak'
const RATE_PER_S = 300
const QUICK_PER_S = 100
const EVERY_MS = 250

export const soak: Scenario = {
  id: 'K1',
  fault: 'sustained load below capacity',
  run: (testbed, scale) => soakFor(testbed, scale),
  controls: [
    {
      what: 'clients that open a new connection each time and never close one',
      misses: 'handles grown',
      run: (testbed, scale) => soakFor(testbed, { ...scale, isQuick: true }, true),
    },
  ],
}

async function soakFor(testbed: Testbed, scale: Scale, isLeaking = false): Promise<Finding> {
  const redis = await testbed.redis({ fsync: 'no' })
  // A small cache, which is full before the second half starts.
  const service = await testbed.service(redis.url, { CACHE_MAX_BYTES: '2097152' })
  const worker = await startDrain(redis, [QUEUE])
  const httpClient = testbed.httpClient()
  const history = createHistory(QUEUE)
  const options = {
    history,
    queue: QUEUE,
    keys: 'none',
    retries: false,
    opts: { removeOnComplete: 100 },
    choose: () => service.url,
  } as const
  const reads: number[] = []
  const ratePerS = scale.isQuick ? QUICK_PER_S : RATE_PER_S
  const load = openLoop(testbed, ratePerS, async (client) => {
    const own = isLeaking && client % 10 === 0 ? testbed.httpClient() : httpClient
    const { id } = await enqueue({ ...options, httpClient: own }, client)
    if (id !== undefined) reads.push((await httpClient.ask(`${service.url}/jobs/${id}`)).status)
  })
  const samples: { atMs: number; rssMb: number; handles: number }[] = []
  const seconds = secondsOf(scale, 8, 0.08)
  const startedAt = performance.now()
  while (performance.now() < startedAt + seconds * 1_000) {
    await sleep(EVERY_MS)
    samples.push({ atMs: performance.now(), rssMb: service.rssMb(), handles: service.handles() })
    scale.progress(`${history.operations.length} jobs, ${Math.round(service.rssMb())} MB`)
  }
  await load.stop()
  const seen = await worker.finish()
  const verdict = check(history, seen)
  // The first half covers compilation, filling the cache and heap growth.
  const half = samples.slice(samples.length / 2)
  const middle = (some: typeof samples, of: 'rssMb' | 'handles') =>
    percentile(
      some.map((sample) => sample[of]),
      0.5,
    )
  const grown = (of: 'rssMb' | 'handles') =>
    middle(half.slice(-half.length / 3), of) - middle(half.slice(0, half.length / 3), of)
  const statuses = [...reads, ...triesOf(history).map(({ status }) => status)]
  return {
    checks: [
      { what: '5xx', measured: statuses.filter((status) => status >= 500).length, atMost: 0 },
      {
        what: 'reads with another status than 200 or 404',
        measured: reads.filter((status) => status !== 200 && status !== 404).length,
        atMost: 0,
      },
      { what: 'memory grown in the second half, MB', measured: grown('rssMb'), atMost: 10 },
      { what: 'handles grown in the second half', measured: grown('handles'), atMost: 5 },
      ...toChecks([verdict], seen, [history]),
    ],
    counts: {
      ...countsOf([verdict]),
      reads: reads.length,
      'jobs/s': ratePerS,
      seconds: Math.round(seconds),
      'MB at the end': Math.round(samples.at(-1)!.rssMb),
      // A slope over less than a few minutes is meaningless.
      ...(seconds > 300
        ? { 'MB/h': Math.round(slopePerHour(half.map(({ atMs, rssMb }) => ({ atMs, value: rssMb })))) }
        : {}),
    },
  }
}
