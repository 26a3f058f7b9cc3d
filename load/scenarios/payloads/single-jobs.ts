/** Single enqueues of structured data, from 100 bytes to 200 KB. */
import { compare, type Goal, job, type Scenario, type Setting } from '../scenario.ts'
import { postInTurn } from './bodies.ts'
import { createOrder, createOrderSummary, KB } from './orders.ts'

const CONNECTIONS = 50

interface Size {
  name: string
  /** How many different bodies are sent. */
  count: number
  data(number: number): unknown
}

const sizes: Size[] = [
  { name: '100 bytes', count: 500, data: createOrderSummary },
  { name: '1 KB', count: 500, data: (number) => createOrder(number, KB) },
  { name: '10 KB', count: 100, data: (number) => createOrder(number, 10 * KB) },
  { name: '200 KB', count: 20, data: (number) => createOrder(number, 200 * KB) },
]

export const payloads: Scenario = {
  name: 'payloads',
  shows:
    'Single enqueues of structured data, an order of up to 2,000 lines: every body is another one. The ratios are medians of those of each round.',
  chart: 'Node µs',
  async run(effort) {
    const measured = effort.isQuick ? sizes.filter(({ name }) => name === '10 KB') : sizes
    const settings = measured.map(({ name, count, data }): Setting => {
      const bodies = Array.from({ length: count }, (_, number) =>
        JSON.stringify({ ...job, data: data(number) }),
      )
      return { name, load: postInTurn('/jobs', CONNECTIONS, bodies) }
    })
    const { rows, ratio } = await compare(this.name, ['ours', 'shared', 'bare'], settings, effort)
    const against = (other: string, setting: string) => ({
      cpu: ratio('nodeUs', 'ours', other, setting),
      rate: ratio('requestsPerS', 'ours', other, setting),
    })
    for (const row of rows) {
      if (row.target !== 'ours') continue
      const [shared, bare] = [against('shared', row.setting), against('bare', row.setting)]
      row.more = {
        'Node µs, × shared': shared.cpu,
        'Node µs, × bare': bare.cpu,
        'rate, × shared': shared.rate,
      }
    }
    const goals: Goal[] = []
    for (const { name } of measured) {
      const { cpu, rate } = against('shared', name)
      const [mostCpu, leastRate] = bounds[name] ?? []
      const isRequired = true
      if (mostCpu)
        goals.push({
          what: `Node CPU with ${name}, against shared`,
          measured: cpu,
          atMost: mostCpu,
          isRequired,
        })
      if (leastRate)
        goals.push({
          what: `rate with ${name}, against shared`,
          measured: rate,
          atLeast: leastRate,
          isRequired,
        })
    }
    const bare = against('bare', '10 KB').cpu
    goals.push({ what: 'Node CPU with 10 KB, against bare', measured: bare, atMost: 1, isRequired: true })
    return { rows, goals }
  },
}

/** Against `shared`: most Node CPU, and least rate. */
const bounds: Record<string, [cpu: number, rate?: number]> = {
  '100 bytes': [0.7],
  '10 KB': [0.5, 1.5],
  '200 KB': [0.4, 1.5],
}
