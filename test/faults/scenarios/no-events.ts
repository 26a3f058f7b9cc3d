/** X6: a busy queue whose producer keeps no events, beside others whose workers wait for events. */
import { attackBeside, openTarget, type TargetOptions, withChecks } from '../attacks.ts'
import { controlScale, type Finding, judgeTimes, type Scale, type Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { sleep } from '../timing.ts'
import { producer, takeWaiting } from '../wake-ups.ts'

const OTHERS = ['other-0', 'other-1', 'other-2']
/** Its worker waits for each job. */
const SILENT = 'silent'
/** Its jobs are added all the time, and read. */
const BUSY = 'silent-and-busy'
const WAKE_MS = 25
/** Of a queue without events, which the service has to poll. */
const SILENT_WAKE_MS = 1_000
const ADDED_EVERY_MS = 5

export const noEvents: Scenario = {
  id: 'X6',
  fault: 'a busy queue that keeps no events (`maxLen: 0`), beside queues that do',
  run: (testbed, scale) => addSilently(testbed, scale, {}),
  controls: [
    {
      what: 'a service whose reader of events expects some in every reply',
      misses: 'wake-up of workers of other queues',
      run: (testbed, scale) => addSilently(testbed, controlScale(scale), { isBoundless: true }),
    },
  ],
}

async function addSilently(testbed: Testbed, scale: Scale, options: TargetOptions): Promise<Finding> {
  const target = await openTarget(testbed, options)
  const { service, ordinary } = target
  const httpClient = testbed.httpClient()
  let others: number[] = []
  let silent: number[] = []
  const busy = producer(target.redis, BUSY, 0)
  let added = 0
  const finding = await attackBeside(testbed, scale, target, async (seconds) => {
    const deadline = performance.now() + seconds * 1_000
    const adding = async () => {
      for (; performance.now() < deadline; await sleep(ADDED_EVERY_MS)) {
        const { id } = await busy.add('n', {})
        // The service follows a queue whose jobs are read.
        if (added++ % 20 === 0) {
          await httpClient.ask(`${service.url}/jobs/${BUSY}:${id}`, { headers: ordinary })
        }
      }
    }
    const [, onSilent, ...onOthers] = await Promise.all([
      adding(),
      takeWaiting(testbed, target, SILENT, seconds, { maxEvents: 0 }),
      ...OTHERS.map((queue) => takeWaiting(testbed, target, queue, seconds)),
    ])
    others = onOthers.flat()
    silent = onSilent
  })
  return withChecks(
    finding,
    [
      judgeTimes(scale, 'wake-up of workers of other queues', others, WAKE_MS),
      {
        what: 'wake-up of workers of the queue without events, most, ms',
        measured: Math.max(0, ...silent),
        // A quick run shares its machine.
        atMost: scale.isQuick ? 2 * SILENT_WAKE_MS : SILENT_WAKE_MS,
      },
      { what: 'wake-ups', measured: Math.min(others.length, silent.length), atLeast: 3 },
    ],
    {
      'jobs added without an event': added,
      'wake-ups of others': others.length,
      'of the queue without events': silent.length,
    },
  )
}
