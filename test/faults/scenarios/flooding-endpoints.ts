/** X10: webhook endpoints that respond without an end, and as fast as they can, with what precedes or surrounds a body. */
import { attackBeside, openTarget, type TargetOptions, withChecks } from '../attacks.ts'
import { floodWays, startFastEndpoint, startSlowEndpoint, subscribe } from '../endpoints.ts'
import { openLoop } from '../load.ts'
import { controlScale, type Finding, judgeTimes, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const HEALTHY = 'healthy'
const TIMEOUT_MS = 2_000
const CONCURRENCY = 5
const DELIVERED_MS = 100
const RATE_PER_S = 20

export const floodingEndpoints: Scenario = {
  id: 'X10',
  fault: 'webhook endpoints that send endless 103s, chunk extensions, headers and trailers',
  run: (testbed, scale) => flood(testbed, scale, {}),
  controls: [
    {
      what: 'a service that parses whatever an endpoint sends',
      misses: 'ordinary requests took',
      run: (testbed, scale) => flood(testbed, controlScale(scale), { isBoundless: true }),
    },
  ],
}

async function flood(testbed: Testbed, scale: Scale, options: TargetOptions): Promise<Finding> {
  const env = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8' }
  const target = await openTarget(testbed, { env, ...options })
  const { service, ordinary, attacker } = target
  const httpClient = testbed.httpClient()
  const endpoint = await startFastEndpoint(testbed)
  const floods = await Promise.all(floodWays.map((way) => startSlowEndpoint(testbed, way)))
  const queueOf = (index: number) => `flood-${index}`
  await subscribe(httpClient, service, HEALTHY, { url: endpoint.url, timeoutMs: TIMEOUT_MS }, ordinary)
  for (const [index, { url }] of floods.entries()) {
    const subscription = { url, timeoutMs: TIMEOUT_MS, concurrency: CONCURRENCY }
    await subscribe(httpClient, service, queueOf(index), subscription, attacker)
  }
  const sent = new Map<string, number>()
  const send = async (queue: string, headers: Record<string, string>) => {
    const at = performance.now()
    const body = JSON.stringify({ queue, name: 'n', opts: { attempts: 3 } })
    const response = await httpClient.ask(`${service.url}/jobs`, { headers, body })
    if (response.status === 201 && queue === HEALTHY) {
      sent.set((JSON.parse(response.body) as { id: string }).id, at)
    }
  }
  const undelivered = () => [...sent.keys()].filter((id) => !endpoint.arrivals.has(id)).length
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const attack = openLoop(testbed, 2 * floods.length, (index) =>
      send(queueOf(index % floods.length), attacker),
    )
    const load = openLoop(testbed, RATE_PER_S, () => send(HEALTHY, ordinary))
    await sleep(seconds * 1_000)
    await Promise.all([load.stop(), attack.stop()])
    await until('all is delivered', () => undelivered() === 0, TIMEOUT_MS, 50).catch(() => {})
  })
  const times = [...sent].map(([id, at]) => (endpoint.arrivals.get(id)?.[0] ?? performance.now()) - at)
  const attempts = floods.flatMap((one) => one.attempts)
  const lasted = attempts.map(({ from, to }) => Math.min(to, performance.now()) - from)
  return withChecks(
    finding,
    [
      { what: 'jobs of the healthy endpoint not delivered', measured: undelivered(), atMost: 0 },
      judgeTimes(scale, 'latency of healthy deliveries', times, DELIVERED_MS),
      {
        what: 'attempts ended after, most, ms',
        measured: Math.max(0, ...lasted),
        atMost: TIMEOUT_MS + 1_000,
      },
      { what: 'attempts at them', measured: attempts.length, atLeast: floods.length },
    ],
    { 'healthy deliveries': times.length, 'attempts at them': attempts.length },
  )
}
