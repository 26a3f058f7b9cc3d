/**
 * `npm run test:faults`: runs every fault and every control, in about forty minutes. `-- --minutes 10` runs the timed
 * scenarios twice as long, `-- --only D1,A5,X` selects ids or letters, `-- --quick` uses the small numbers of CI. A complete
 * run writes test/faults/RESULTS.md. Exits with 1 if a check is missed, or if a control does not miss its check.
 */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { attackSummary, describe, isValid, type Result } from './results-table.ts'
import { holds, runScenario, type Scale, sentence } from './scenario.ts'
import { scenarios } from './scenarios.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
  },
})
const minutes = Number(values.minutes)
const only = values.only?.split(',')
// Everything that was started ends with this process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

const isTerminal = process.stderr.isTTY
const scale: Scale = {
  ...{ entry: 'dist/server.js', isQuick: values.quick, minutes },
  progress: (text) => {
    if (isTerminal) process.stderr.write(`\r\x1b[K  ${text}`)
  },
}
const clear = () => {
  if (isTerminal) process.stderr.write('\r\x1b[K')
}

const results: Result[] = []
for (const scenario of scenarios) {
  const { id, fault } = scenario
  if (only && !only.some((one) => id === one || id.startsWith(beginning(one)))) continue
  console.log(`\n${id}  ${fault}`)
  const result: Result = { scenario, played: await runScenario(scenario, scale), controls: [] }
  clear()
  for (const check of result.played.checks) {
    console.log(`  ${holds(check) ? 'holds ' : 'MISSED'} ${sentence(check)}`)
    if (!holds(check)) for (const sample of check.samples ?? []) console.log(`         ${sample}`)
  }
  console.log(`  ${JSON.stringify(result.played.counts)}, ${Math.round(result.played.seconds)} s`)
  const figures = attackSummary(result.played)
  if (figures) console.log(`  ${figures}`)
  for (const control of scenario.controls) {
    const played = await runScenario(control, scale)
    clear()
    result.controls.push({ control, played })
    const missed = played.checks.filter((check) => !holds(check))
    console.log(`  control: ${control.what}: missed ${missed.map(sentence).join(', ') || 'NOTHING'}`)
  }
  results.push(result)
}

/** The beginning of the ids of a letter, or of the variants of an id. */
function beginning(one: string): string {
  return one.length === 1 ? one : `${one} `
}

if (!only && !values.quick) {
  await writeFile('test/faults/RESULTS.md', await describe(results, minutes))
  console.log('\nwrote test/faults/RESULTS.md')
}
const bad = results.filter((result) => !isValid(result))
console.log(
  bad.length === 0
    ? '\nall hold, and all controls fail'
    : `\nnot so: ${bad.map(({ scenario }) => scenario.id)}`,
)
process.exitCode = bad.length === 0 ? 0 : 1
