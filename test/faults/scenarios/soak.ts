/** K1: a part of what it can take, for a time, with a native worker behind it and readers before it. Nothing grows. */
import { check, percentile, slopePerHour } from '../checker.ts'
import { enqueue } from '../clients.ts'
import { countsOf, judgements } from '../crowd.ts'
import { startDrain } from '../drain.ts'
import { createHistory, triesOf } from '../history.ts'
import { openLoop } from '../load.ts'
import { type Finding, type Scale, type Scenario, secondsOf } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { sleep } from '../wait.ts'

const QUEUE = 'soak'
const RATE_PER_S = 300
const QUICK_PER_S = 100
const EVERY_MS = 250

export const soak: Scenario = {
  id: 'K1',
  fault: 'a soak at part load',
  run: (stage, scale) => soakFor(stage, scale),
  controls: [
    {
      what: 'clients that leave each connection open and take a new one',
      misses: 'handles grown',
      run: (stage, scale) => soakFor(stage, { ...scale, isQuick: true }, true),
    },
  ],
}

async function soakFor(stage: Stage, scale: Scale, isLeaking = false): Promise<Finding> {
  const redis = await stage.redis({ fsync: 'no' })
  // So that it is full before the second half begins.
  const service = await stage.service(redis.url, { CACHE_MAX_BYTES: '2097152' })
  const worker = await startDrain(redis, [QUEUE])
  const browser = stage.browser()
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
  const load = openLoop(stage, ratePerS, async (client) => {
    const own = isLeaking && client % 10 === 0 ? stage.browser() : browser
    const { id } = await enqueue({ ...options, browser: own }, client)
    if (id !== undefined) reads.push((await browser.ask(`${service.url}/jobs/${id}`)).status)
  })
  const samples: { atMs: number; rssMb: number; handles: number }[] = []
  const seconds = secondsOf(scale, 8, 0.08)
  const began = performance.now()
  while (performance.now() < began + seconds * 1_000) {
    await sleep(EVERY_MS)
    samples.push({ atMs: performance.now(), rssMb: service.rssMb(), handles: service.handles() })
    scale.progress(`${history.operations.length} jobs, ${Math.round(service.rssMb())} MB`)
  }
  await load.stop()
  const seen = await worker.finish()
  const verdict = check(history, seen)
  // The first half is for compiling, for filling the cache and for the heap to find its size.
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
        what: 'reads but 200',
        measured: reads.filter((status) => status !== 200 && status !== 404).length,
        atMost: 0,
      },
      { what: 'memory grown in the second half, MB', measured: grown('rssMb'), atMost: 10 },
      { what: 'handles grown in the second half', measured: grown('handles'), atMost: 5 },
      ...judgements([verdict], seen, [history]),
    ],
    counts: {
      ...countsOf([verdict]),
      reads: reads.length,
      'jobs/s': ratePerS,
      seconds: Math.round(seconds),
      'MB at the end': Math.round(samples.at(-1)!.rssMb),
      // Of less than some minutes it says nothing.
      ...(seconds > 300
        ? { 'MB/h': Math.round(slopePerHour(half.map(({ atMs, rssMb }) => ({ atMs, value: rssMb })))) }
        : {}),
    },
  }
}
