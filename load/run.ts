/**
 * `npm run load`: every scenario; `npm run load -- --quick`: a smoke test of a minute; `-- --only hot`: those whose name
 * holds the word. Exits with 1 on errors of a target; a goal that is missed is said, not punished: a machine may be slow.
 */
import { parseArgs } from 'node:util'
import type { Measure } from './bench.ts'
import type { Effort, Goal } from './scenarios/scenario.ts'
import { scenarios } from './scenarios.ts'

const { values: args } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    rounds: { type: 'string' },
  },
})
const full: Effort = { rounds: Number(args.rounds ?? 5), seconds: 5, backlog: 200_000 }
const quick: Effort = { rounds: 1, seconds: 1, backlog: 5_000 }
let errors = 0

for (const scenario of scenarios) {
  if (args.only && !scenario.name.includes(args.only)) continue
  console.log(`\n${scenario.name}\n  ${scenario.shows}`)
  const { rows, goals } = await scenario.run(args.quick ? quick : full)
  if (rows.length > 0) console.table(Object.fromEntries(rows.map((row) => [row.target, columns(row)])))
  for (const goal of goals) console.log(`  ${sentence(goal)}`)
  errors += rows.reduce((sum, row) => sum + row.errors, 0)
}
if (errors > 0) {
  console.error(`\n${errors} requests failed`)
  process.exitCode = 1
}

function columns(row: Measure) {
  return {
    'requests/s': row.requestsPerS,
    'p50 ms': row.p50Ms,
    'p99 ms': row.p99Ms,
    'Node µs': round(row.nodeUs),
    'Redis µs': round(row.redisUs),
    'Redis commands': round(row.commands),
    'RSS MB': row.rssMb,
    errors: row.errors,
  }
}

function sentence({ what, measured, atMost, atLeast }: Goal): string {
  const met = (atMost === undefined || measured <= atMost) && (atLeast === undefined || measured >= atLeast)
  const bound = atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`
  return `${met ? 'met   ' : 'MISSED'} ${what}: ${round(measured)} (${bound})`
}

function round(value: number): number | string {
  // Not measured for this target.
  if (Number.isNaN(value)) return ''
  return Math.round(value * 1_000) / 1_000
}
