/** Accepted bodies of the default limit, 1 MiB, one at a time: the longest turn of the event loop that they cause. */
import type { Measure, Target } from '../../bench.ts'
import { compare, type Goal, job, type Scenario, type Side } from '../scenario.ts'
import { postInTurn } from './bodies.ts'
import { createOrder, KB } from './orders.ts'

const LIMIT = 1_048_576
const BODIES = 4
const REQUESTS = 60
const LONGEST = 'longest turn, ms'

interface Kind {
  name: string
  path: string
  body(number: number): string
}

const { queue, name } = job
const jobWith = (data: string) => `{"queue":"${queue}","name":"${name}","data":${data}}`
/** A body with so much data is within the limit. */
const DATA_BYTES = LIMIT - Buffer.byteLength(jobWith('[]'))
const repeat = (bytes: number, item: (i: number) => string): string => {
  let text = item(0)
  for (let i = 1; ; i++) {
    const next = `,${item(i)}`
    if (text.length + next.length > bytes) return text
    text += next
  }
}

const kinds: Kind[] = [
  {
    name: 'an order',
    path: '/jobs',
    body: (number) => jobWith(JSON.stringify(createOrder(number, DATA_BYTES))),
  },
  {
    name: 'an object of short keys',
    path: '/jobs',
    body: (number) => jobWith(`{${repeat(DATA_BYTES, (i) => `"${(number * 1e6 + i).toString(36)}":0`)}}`),
  },
  {
    name: 'empty objects',
    path: '/jobs',
    body: () => jobWith(`[${repeat(DATA_BYTES, () => '{}')}]`),
  },
  {
    name: 'a string of escapes',
    path: '/jobs',
    body: (number) => jobWith(`"${`\\u4e2${number}\\n`.repeat(Math.floor(DATA_BYTES / 8))}"`),
  },
  {
    name: 'a batch of orders',
    path: '/jobs/batch',
    body: (number) =>
      JSON.stringify({
        jobs: Array.from({ length: 1_000 }, (_, i) => ({
          ...job,
          data: createOrder(number * 1_000 + i, KB),
        })),
      }),
  },
]

export const largeBodies: Scenario = {
  name: 'large bodies',
  shows:
    'Bodies of 1 MiB, one at a time. A turn of the event loop counts with the smaller of its wall time and its CPU time; the longest one of each round, median of the rounds. The event loop never sleeps meanwhile, so CPU times are those of the watcher too.',
  async run(effort) {
    const watch: Side['watch'] = async (target: Target) => {
      await target.longestTurnMs()
      return async () => ({ [LONGEST]: await target.longestTurnMs() })
    }
    // Not even on a busy machine may the service refuse what is to be measured.
    const env = () => ({ MAX_EVENT_LOOP_DELAY: '0' })
    const sides: Side[] = ['ours', 'shared'].map((target) => ({ target, env, watch }))
    const measured = effort.isQuick ? kinds.slice(0, 1) : kinds
    const settings = measured.map(({ name, path, body }) => ({
      name,
      load: postInTurn(
        path,
        1,
        Array.from({ length: BODIES }, (_, number) => body(number)),
      ),
      requests: REQUESTS,
      quickRequests: 10,
    }))
    const { rows, of } = await compare(this.name, sides, settings, effort)
    const goals = measured.map(({ name }): Goal => {
      const longest = (target: string) => of(target, name).more![LONGEST]!
      return {
        what: `longest turn for ${name} of 1 MiB, ms (shared: ${Math.round(longest('shared'))})`,
        measured: longest('ours'),
        atMost: 25,
        isRequired: true,
      }
    })
    return { rows: rows.map(withoutCpu), goals }
  },
}

/** The watcher takes all the CPU time that is left. */
function withoutCpu(row: Measure): Measure {
  return { ...row, nodeUs: Number.NaN }
}
