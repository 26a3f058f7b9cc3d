/**
 * `npm run load` runs every scenario. `-- --only hot,batch` selects those whose name contains one of the words,
 * `-- --save` saves the figures in load/results/ and writes the report, `-- --report` only writes the report of saved
 * runs, `-- --quick` is a smoke test of a minute. The exit code is 1 if requests failed, or if a goal that is
 * required was missed; not in a quick run, because the machine may be slow. Other missed goals are only printed.
 */
import { parseArgs } from 'node:util'
import type { Measure } from './bench.ts'
import { endProgress } from './progress.ts'
import { writeReport } from './report.ts'
import { describeRun, loadRuns, type Result, type Run, saveRun } from './results.ts'
import type { Effort, Scenario } from './scenarios/scenario.ts'
import { scenarios } from './scenarios.ts'
import { columns, formatGoal, isMet } from './tables.ts'

const { values: args } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false },
    report: { type: 'boolean', default: false },
    only: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '4' },
  },
})
const full: Effort = {
  rounds: Number(args.rounds),
  seconds: Number(args.seconds),
  isQuick: false,
}
const quick: Effort = { rounds: 1, seconds: 1, isQuick: true }

endWithNpm()
if (args.report) await report()
else await measureAll(args.quick ? quick : full)

/** npm forwards signals, but cannot when it is killed. Redis and the targets end with this process. */
function endWithNpm(): void {
  if (process.env['npm_lifecycle_event'] !== 'load') return
  const npm = process.ppid
  setInterval(() => process.ppid === npm || process.exit(1), 500).unref()
}

async function measureAll(effort: Effort): Promise<void> {
  if (effort.isQuick)
    console.log('Quick run: it only shows that the scenarios work; its figures mean little.')
  const run = await describeRun(effort.rounds, effort.seconds)
  for (const scenario of scenarios.filter(isSelected)) {
    const { name, shows, chart = 'requests/s' } = scenario
    console.log(`\n${name}\n  ${shows}`)
    const outcome = await scenario.run(effort)
    endProgress()
    const result = { name, shows, chart, ...outcome }
    printResult(result)
    run.scenarios.push(result)
  }
  if (args.save) {
    console.log(`\nSaved to ${await saveRun(run)}`)
    await report()
  }
  failOnErrors(run)
  if (!effort.isQuick) failOnMissedGoals(run)
}

function isSelected({ name }: Scenario): boolean {
  return args.only === undefined || args.only.split(',').some((word) => name.includes(word.trim()))
}

function printResult({ rows, goals }: Result): void {
  const labelled = rows.map((row): [string, object] => [labelOf(row), columns(row)])
  if (rows.length > 0) console.table(Object.fromEntries(labelled))
  for (const goal of goals) console.log(`  ${formatGoal(goal)}`)
}

function labelOf({ target, setting }: Measure): string {
  return setting === '' ? target : `${target}, ${setting}`
}

function failOnErrors({ scenarios: results }: Run): void {
  const rows = results.flatMap((result) => result.rows)
  const errors = rows.reduce((sum, row) => sum + row.errors, 0)
  if (errors === 0) return
  console.error(`\n${errors} requests failed`)
  process.exitCode = 1
}

function failOnMissedGoals({ scenarios: results }: Run): void {
  const missed = results.flatMap(({ goals }) => goals.filter((goal) => goal.isRequired && !isMet(goal)))
  if (missed.length === 0) return
  console.error(`\n${missed.length} required goals missed`)
  for (const goal of missed) console.error(`  ${formatGoal(goal)}`)
  process.exitCode = 1
}

async function report(): Promise<void> {
  const runs = await loadRuns()
  if (runs.length === 0) throw new Error('No saved run. Create one with npm run load -- --save.')
  console.log(`Wrote ${await writeReport(runs)}`)
}
