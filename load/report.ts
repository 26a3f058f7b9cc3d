/** `npm run load -- --report`: load/results/README.md and its charts, of each scenario from the newest run that is kept there. */
import { writeFile } from 'node:fs/promises'
import * as echarts from 'echarts'
import type { Measure } from './bench.ts'
import { type Result, type Run, resultsDir } from './results.ts'
import { columns, isMet, sentence } from './tables.ts'

/** Nothing to draw with fewer. */
const MIN_BARS = 2
const WIDTH = 760
const BAR_HEIGHT = 22
/** Beyond this between the longest and the shortest bar, the shortest would not be seen. */
const MAX_LINEAR = 40
const COLOURS: Record<string, string> = { ours: '#2563eb', bare: '#94a3b8' }
const OTHER_COLOUR = '#cbd5e1'

/** `runs`: the newest last. */
export async function writeReport(runs: Run[]): Promise<string> {
  const newest = new Map<string, { run: Run; result: Result }>()
  for (const run of runs) for (const result of run.scenarios) newest.set(result.name, { run, result })
  const parts = [
    head(
      runs.at(-1)!,
      [...newest.values()].map(({ result }) => result),
    ),
  ]
  for (const { run, result } of newest.values()) parts.push(...(await section(run, result)))
  const file = `${resultsDir}/README.md`
  await writeFile(file, parts.join('\n'))
  return file
}

async function section({ at, commit, rounds, seconds }: Run, result: Result): Promise<string[]> {
  const parts = [`## ${capital(result.name)}\n\n${result.shows}\n`]
  const measured = result.rows.filter(({ requestsPerS }) => requestsPerS > 0)
  if (measured.length >= MIN_BARS) {
    const file = `${result.name.replaceAll(' ', '-')}.svg`
    await writeFile(`${resultsDir}/${file}`, `${chart(result, measured)}\n`)
    parts.push(`![Requests a second: ${result.name}](${file})\n`)
  }
  if (result.rows.length > 0) parts.push(table(result.rows))
  if (result.goals.length > 0) parts.push(goals(result))
  parts.push(`*${at.slice(0, 10)}, commit ${commit}; ${rounds} rounds of ${seconds} s.*\n`)
  return parts
}

function head({ machine, versions }: Run, results: Result[]): string {
  const all = results.flatMap((result) => result.goals)
  const met = all.filter(isMet).length
  return `# Figures

Made by \`npm run load -- --save\` and \`npm run load -- --report\`. ${machine.cores} × ${machine.cpu}, ${machine.memoryGb} GB; Node ${versions.node},
Redis ${versions.redis}, BullMQ ${versions.bullmq}, Fastify ${versions.fastify}, autocannon ${versions.autocannon}. The load runs on the same machine. Medians of the
rounds, the targets in turn, each on a Redis of its own without persistence. ${met} of ${all.length} goals are met.

\`ours\` is the service as it ships. \`shared\` is one Fastify handler with one Queue: \`queue.add\`, \`getJob\`, \`getState\`. \`naive\` opens a connection for every
request. \`bare\` is Fastify with the same schema and nothing behind it. CPU times and command counts are the figures to compare; rates are weather.
`
}

function table(rows: Measure[]): string {
  const names = Object.keys(columns(rows[0]!))
  const line = (cells: (string | number)[]) => `| ${cells.join(' | ')} |`
  const body = rows.map((row) => line([label(row), ...Object.values(columns(row)).map(shown)]))
  return [line(['', ...names]), line(['---', ...names.map(() => '---:')]), ...body, ''].join('\n')
}

function shown(cell: string | number): string {
  return typeof cell === 'number' ? cell.toLocaleString('en') : cell
}

function goals(result: Result): string {
  return `${result.goals.map((goal) => `- ${sentence(goal)}`).join('\n')}\n`
}

/** Bars of requests a second, the first row on top. */
function chart(result: Result, rows: Measure[]): string {
  const rates = rows.map(({ requestsPerS }) => requestsPerS)
  const isLog = Math.max(...rates) > MAX_LINEAR * Math.min(...rates)
  const plot = echarts.init(null, null, {
    ...{ renderer: 'svg', ssr: true },
    ...{ width: WIDTH, height: 60 + BAR_HEIGHT * rows.length },
  })
  plot.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: {
      text: `${capital(result.name)}: requests a second${isLog ? ' (logarithmic)' : ''}`,
      textStyle: { fontSize: 13, fontWeight: 'normal' },
    },
    grid: { left: 8, right: 70, top: 34, bottom: 4, containLabel: true },
    xAxis: { type: isLog ? 'log' : 'value', axisLabel: { show: false }, splitLine: { show: false } },
    yAxis: { type: 'category', inverse: true, data: rows.map(label), axisTick: { show: false } },
    series: [
      {
        type: 'bar',
        barCategoryGap: '25%',
        label: {
          show: true,
          position: 'right',
          formatter: ({ value }: { value: unknown }) => Number(value).toLocaleString('en'),
        },
        data: rows.map(({ target, requestsPerS }) => ({
          value: requestsPerS,
          itemStyle: { color: COLOURS[target] ?? OTHER_COLOUR },
        })),
      },
    ],
  })
  const svg = plot.renderToSVGString()
  plot.dispose()
  return svg
}

function label({ target, setting }: Measure): string {
  return setting === '' ? target : `${target}, ${setting}`
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
