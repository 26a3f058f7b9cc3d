/** X8: a name server does not answer for the endpoints of one key, beside an endpoint of another whose name resolves. */
import { attackBeside, openTarget, type TargetOptions, withChecks } from '../attacks.ts'
import { startFastEndpoint, subscribe } from '../endpoints.ts'
import { openLoop } from '../load.ts'
import { startNameServer } from '../name-server.ts'
import { controlScale, type Finding, judgeTimes, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep, until } from '../timing.ts'

const HANGING = 12
const HEALTHY = 'healthy'
const TIMEOUT_MS = 2_000
const DELIVERED_MS = 100
const RATE_PER_S = 20

export const hangingNames: Scenario = {
  id: 'X8',
  fault: 'the names of 12 webhook endpoints of one key do not resolve: their name server never answers',
  run: (testbed, scale) => hang(testbed, scale, {}),
  controls: [
    {
      what: 'a service that resolves all names in the thread pool',
      misses: 'jobs of the healthy endpoint not delivered',
      run: (testbed, scale) => hang(testbed, controlScale(scale), { isBoundless: true }),
    },
  ],
}

async function hang(testbed: Testbed, scale: Scale, options: TargetOptions): Promise<Finding> {
  const names = await startNameServer(testbed)
  const env = { WEBHOOK_ALLOW_CIDRS: '127.0.0.0/8', ...names.env }
  const target = await openTarget(testbed, { env, wrapper: names.wrapper, ...options })
  const { service, ordinary, attacker } = target
  const httpClient = testbed.httpClient()
  // Without keep-alive, each delivery resolves the name.
  const endpoint = await startFastEndpoint(testbed, { keepsAlive: false })
  const urlOf = (name: string) => endpoint.url.replace('127.0.0.1', `${name}.sluice.test`)
  const hanging = Array.from({ length: HANGING }, (_, index) => `hanging-${index}`)
  for (const queue of hanging) {
    await subscribe(httpClient, service, queue, { url: urlOf(queue), timeoutMs: TIMEOUT_MS }, attacker)
  }
  await subscribe(httpClient, service, HEALTHY, { url: urlOf(HEALTHY), timeoutMs: TIMEOUT_MS }, ordinary)
  const sent = new Map<string, number>()
  const send = async (queue: string, headers: Record<string, string>) => {
    const at = performance.now()
    // The only attempt.
    const body = JSON.stringify({ queue, name: 'n', opts: { attempts: 1 } })
    const response = await httpClient.ask(`${service.url}/jobs`, { headers, body })
    if (response.status === 201) sent.set((JSON.parse(response.body) as { id: string }).id, at)
  }
  const healthy = () => [...sent].filter(([id]) => id.startsWith(`${HEALTHY}:`))
  const undelivered = () => healthy().filter(([id]) => !endpoint.arrivals.has(id))
  await send(HEALTHY, ordinary)
  await until('the healthy endpoint receives jobs', () => undelivered().length === 0)
  sent.clear()
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    names.isHanging = true
    const attack = openLoop(testbed, HANGING * 2, (index) => send(hanging[index % HANGING]!, attacker))
    await sleep(300)
    const load = openLoop(testbed, RATE_PER_S, () => send(HEALTHY, ordinary))
    await sleep(seconds * 1_000)
    await load.stop()
    await attack.stop()
    await until('all is delivered', () => undelivered().length === 0, TIMEOUT_MS, 50).catch(() => {})
  })
  const times = healthy().map(([id, at]) => (endpoint.arrivals.get(id)?.[0] ?? performance.now()) - at)
  return withChecks(
    finding,
    [
      {
        what: 'jobs of the healthy endpoint not delivered',
        measured: undelivered().length,
        atMost: 0,
      },
      judgeTimes(scale, 'latency of healthy deliveries', times, DELIVERED_MS),
      { what: 'queries without an answer', measured: names.unanswered(), atLeast: 1 },
    ],
    { 'healthy deliveries': times.length, 'queries without an answer': names.unanswered() },
  )
}
