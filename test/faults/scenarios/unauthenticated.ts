/** X9: clients without a key request the documents, and are refused, as fast as they can. */
import { attackBeside, openTarget, type TargetOptions, withChecks } from '../attacks.ts'
import { closedLoop } from '../load.ts'
import { createDrain, type Drained, requestText, sendBursts } from '../raw-http.ts'
import { controlScale, type Finding, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep } from '../timing.ts'

const CONNECTIONS = 30
const REFUSED_PER_S = 14_500
/** Of the log, per second. */
const LOG_BYTES = 50_000
/** Requests that one connection pipelines; few, so that they are not refused for their number. */
const BURST = 10

type Kind = 'documents' | 'refusals'

export const documents: Scenario = {
  id: 'X9 documents',
  fault: '30 connections without a key request /openapi.json and /docs, without pause',
  run: (testbed, scale) => hammer(testbed, scale, 'documents', {}),
  controls: [
    {
      what: 'a service that renders the document for each request',
      misses: 'ordinary requests took',
      run: (testbed, scale) => hammer(testbed, controlScale(scale), 'documents', { isBoundless: true }),
    },
  ],
}

export const refusals: Scenario = {
  id: 'X9 refusals',
  fault: '14,500 requests a second that are refused: without a key, with a wrong one, of unknown paths',
  run: (testbed, scale) => hammer(testbed, scale, 'refusals', {}),
  controls: [
    {
      what: 'a service that logs each refusal',
      misses: 'bytes of log per second',
      run: (testbed, scale) => hammer(testbed, controlScale(scale), 'refusals', { isBoundless: true }),
    },
  ],
}

async function hammer(testbed: Testbed, scale: Scale, kind: Kind, options: TargetOptions): Promise<Finding> {
  // The default; other scenarios log no requests.
  const target = await openTarget(testbed, { env: { LOG_REQUESTS: 'failed' }, ...options })
  const { service } = target
  const logged = service.output().length
  const answers: Drained[] = []
  let sent = 0
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    if (kind === 'refusals') {
      sent = await sendRefused(testbed, service.url, seconds)
      return
    }
    const drain = createDrain(testbed)
    const paths = options.isBoundless ? ['/openapi.json'] : ['/openapi.json', '/docs', '/docs/']
    const load = closedLoop(testbed, CONNECTIONS, async (client) => {
      answers.push(await drain(`${service.url}${paths[client % paths.length]}`, { timeoutMs: 5_000 }))
    })
    await sleep(seconds * 1_000)
    await load.stop()
  })
  const odd = answers.filter(({ status }) => status === 0 || status >= 500)
  const bytesPerS = (service.output().length - logged) / finding.attack.seconds
  return withChecks(
    finding,
    [
      { what: 'bytes of log per second', measured: bytesPerS, atMost: LOG_BYTES },
      { what: 'documents not answered, or with 5xx', measured: odd.length, atMost: 0 },
    ],
    {
      'documents/s': Math.round(answers.length / finding.attack.seconds),
      'refused/s': Math.round(sent / finding.attack.seconds),
    },
  )
}

/** At a fixed rate, in bursts, on as many connections; resolves with how many were answered. */
async function sendRefused(testbed: Testbed, url: string, seconds: number): Promise<number> {
  const wrong = { authorization: 'Bearer sluice_wrong_0123456789012345678901234567890123456789' }
  const requests = [
    requestText('/jobs/ordinary:none', {}),
    requestText('/jobs/ordinary:none', wrong),
    requestText('/none', {}),
    requestText('/jobs', wrong, '{"queue":"ordinary","name":"n"}'),
  ]
  const burst = Array.from({ length: BURST }, (_, index) => requests[index % requests.length]!)
  const senders = Array.from({ length: CONNECTIONS }, () =>
    sendBursts(testbed, url, burst, REFUSED_PER_S / CONNECTIONS, seconds),
  )
  return (await Promise.all(senders)).reduce((sum, answered) => sum + answered)
}
