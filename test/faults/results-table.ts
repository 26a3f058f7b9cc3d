/** Formats the results as Markdown: `test/faults/RESULTS.md`. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { findRedisBinary } from '../../src/redis/embedded/redis-binary.ts'
import {
  type AttackFigures,
  type Check,
  type Control,
  CRASHED,
  holds,
  missesItsCheck,
  round,
  type Scenario,
  type ScenarioRun,
} from './scenario.ts'
import { missing } from './scenarios.ts'

export interface Result {
  scenario: Scenario
  played: ScenarioRun
  controls: { control: Control; played: ScenarioRun }[]
}

export async function describe(results: Result[], minutes: number): Promise<string> {
  const { version } = await findRedisBinary({
    cacheDir: '.redis',
    path: process.env['PATH'] ?? '',
    onFetch: () => {},
  })
  const versionOf = (name: string) =>
    (JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')) as { version: string }).version
  const took = results.reduce(
    (sum, { played, controls }) =>
      sum + played.seconds + controls.reduce((all, control) => all + control.played.seconds, 0),
    0,
  )
  const seconds = (played: ScenarioRun) => Math.round(played.seconds)
  const lines = [
    '# Faults',
    '',
    'Written by `npm run test:faults`. Every fault is caused for real, on real processes under load. Afterwards the acknowledged',
    'jobs are compared with what Redis holds and what a native worker receives. The controls below show that the checks can fail.',
    '',
    `${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC, commit ${commit()}, ${Math.round(took / 60)} minutes (\`--minutes ${minutes}\`).`,
    `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB, which also ran the clients.`,
    `Node ${process.versions.node}, redis-server ${version}, BullMQ ${versionOf('bullmq')}, Fastify ${versionOf('fastify')}.`,
    '',
    total(results),
    '',
    '| | Fault | What was measured (and its bound) | Done | s | |',
    '| --- | --- | --- | --- | ---: | --- |',
    ...results.map(({ scenario, played }) =>
      row(
        scenario.id,
        scenario.fault,
        measured(played.checks),
        done(played.counts),
        seconds(played),
        verdict(played),
      ),
    ),
    ...missing.map(({ id, fault, why }) => row(id, fault, '', '', '', why)),
    '',
    '## Attacks',
    '',
    'Ordinary requests of another API key (POST /jobs and GET /jobs/:id at a fixed rate) beside each attack, and the memory of the',
    'service, whose heap is limited to 512 MB: before, at most, and within a minute after the attack.',
    '',
    '| | Attack, s | Crashes | p99 before, ms | p99 during, ms | Times | p99 after, ms | MB before | MB at most | MB after |',
    '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
    ...results.flatMap(({ scenario, played }) =>
      played.attack ? [row(scenario.id, ...attackCells(played, played.attack))] : [],
    ),
    '',
    '## Controls',
    '',
    'The same faults and checks without something that the guarantee depends on: each control must miss its check.',
    '',
    '| | Control | What it missed | Done | s | |',
    '| --- | --- | --- | --- | ---: | --- |',
    ...results.flatMap(({ scenario, controls }) =>
      controls.map(({ control, played }) =>
        row(
          scenario.id,
          control.what,
          measured(played.checks.filter((check) => !holds(check))),
          done(played.counts),
          seconds(played),
          missesItsCheck(control, played) ? 'missed, as it must' : '**HELD, and must not**',
        ),
      ),
    ),
    '',
  ]
  return lines.join('\n')
}

export function isValid({ played, controls }: Result): boolean {
  return (
    played.checks.every(holds) && controls.every(({ control, played }) => missesItsCheck(control, played))
  )
}

/** Undefined if the scenario is not an attack beside ordinary requests. */
export function attackSummary(played: ScenarioRun): string | undefined {
  if (!played.attack) return undefined
  const [seconds, crashes, quiet, during, times, after, beforeMb, mostMb, afterMb] = attackCells(
    played,
    played.attack,
  )
  return (
    `${seconds} s of attack: ${crashes} crashes; p99 of ordinary requests ${quiet} → ${during} ms (${times} times), ` +
    `then ${after} ms; RSS ${beforeMb} → ${mostMb} → ${afterMb} MB`
  )
}

function attackCells(
  { checks }: ScenarioRun,
  { seconds, quietMs, duringMs, afterMs, beforeMb, mostMb, afterMb }: AttackFigures,
): number[] {
  const crashes = checks.find(({ what }) => what === CRASHED)?.measured ?? 0
  const times = duringMs / quietMs
  return [seconds, crashes, quietMs, duringMs, times, afterMs, beforeMb, mostMb, afterMb].map(round)
}

/** Totals of the durability scenarios. */
function total(results: Result[]): string {
  const sum = (name: string) =>
    results
      .filter(({ scenario }) => scenario.id.startsWith('D'))
      .reduce((all, { played }) => all + (played.counts[name] ?? 0), 0)
  const kills = sum('SIGKILL of Redis') + sum('SIGKILL of the service')
  return (
    `All D scenarios: ${kills} kills, ${sum('SIGSTOP of the service')} stops, ${sum('replies lost')} replies lost, ` +
    `${sum('jobs')} jobs tried, ${sum('acknowledged')} acknowledged, ${sum('unknown')} of unknown outcome, of which ` +
    `${sum('recovered')} existed.`
  )
}

function row(...cells: (string | number)[]): string {
  return `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`
}

/** Checks that must count zero, and do, are listed together; the others with their figures. */
function measured(checks: Check[]): string {
  const isNone = ({ measured, atMost }: Check) => measured === 0 && atMost === 0
  const none = checks.filter(isNone).map(({ what }) => what)
  const figures = checks
    .filter((check) => !isNone(check))
    .map(({ what, measured, atMost, atLeast }) => {
      const bound = atLeast === undefined ? `≤ ${atMost}` : `≥ ${atLeast}`
      return `${what} ${round(measured)} (${bound})`
    })
  return [...figures, ...(none.length > 0 ? [`none: ${none.join(', ')}`] : [])].join('; ')
}

function done(counts: Record<string, number>): string {
  return Object.entries(counts)
    .filter(([, count]) => count !== 0)
    .map(([what, count]) => `${count} ${what}`)
    .join(', ')
}

function verdict({ checks }: ScenarioRun): string {
  const missed = checks.filter((check) => !holds(check))
  return missed.length === 0 ? 'holds' : `**MISSED: ${missed.map(({ what }) => what).join(', ')}**`
}

function commit(): string {
  try {
    const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8' }).trim()
    const isClean = git('status', '--porcelain', '--untracked-files=no') === ''
    return git('rev-parse', '--short', 'HEAD') + (isClean ? '' : ' with changes')
  } catch {
    return 'unknown'
  }
}
