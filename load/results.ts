/** Saved runs: one JSON file for each in `load/results/`, committed to the repository. */
import { execFileSync } from 'node:child_process'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { cpus, totalmem } from 'node:os'
import type { Measure } from './bench.ts'
import { startRedis } from './private-redis.ts'
import type { ChartedColumn, Goal } from './scenarios/scenario.ts'

export interface Run {
  /** RFC 3339. */
  at: string
  commit: string
  machine: { cpu: string; cores: number; memoryGb: number }
  versions: Record<'node' | 'redis' | 'bullmq' | 'fastify' | 'autocannon', string>
  rounds: number
  seconds: number
  scenarios: Result[]
}

export interface Result {
  name: string
  shows: string
  /** Absent from old runs: `requests/s`. */
  chart?: ChartedColumn
  rows: Measure[]
  goals: Goal[]
}

export const resultsDir = 'load/results'

export async function describeRun(rounds: number, seconds: number): Promise<Run> {
  const redis = await startRedis()
  const info = await redis.client.info('server')
  await redis.stop()
  const [cpu] = cpus()
  return {
    at: new Date().toISOString(),
    commit: commit(),
    machine: {
      cpu: cpu?.model ?? 'unknown',
      cores: cpus().length,
      memoryGb: Math.round(totalmem() / 2 ** 30),
    },
    versions: {
      node: process.versions.node,
      redis: /redis_version:(\S+)/.exec(info)?.[1] ?? 'unknown',
      bullmq: await versionOf('bullmq'),
      fastify: await versionOf('fastify'),
      autocannon: await versionOf('autocannon'),
    },
    rounds,
    seconds,
    scenarios: [],
  }
}

export async function saveRun(run: Run): Promise<string> {
  await mkdir(resultsDir, { recursive: true })
  const file = `${resultsDir}/${run.at.slice(0, 16).replace(':', '')}-${run.commit}.json`
  await writeFile(file, `${JSON.stringify(run, null, 2)}\n`)
  return file
}

/** Oldest first. A figure that was not measured (NaN) is null in the file. */
export async function loadRuns(): Promise<Run[]> {
  const names = (await readdir(resultsDir).catch(() => [])).filter((name) => name.endsWith('.json')).sort()
  return Promise.all(
    names.map(async (name) => JSON.parse(await readFile(`${resultsDir}/${name}`, 'utf8')) as Run),
  )
}

function commit(): string {
  try {
    const git = (...args: string[]) => execFileSync('git', args, { encoding: 'utf8' }).trim()
    const isClean = git('status', '--porcelain', '--untracked-files=no') === ''
    return git('rev-parse', '--short', 'HEAD') + (isClean ? '' : '-changed')
  } catch {
    return 'unknown'
  }
}

async function versionOf(name: string): Promise<string> {
  const file = JSON.parse(await readFile(`node_modules/${name}/package.json`, 'utf8')) as { version: string }
  return file.version
}
