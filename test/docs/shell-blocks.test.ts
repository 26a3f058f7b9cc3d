/**
 * The blocks of README.md and docs/quickstart.md that are marked as runnable, in order, against a real service and
 * Redis. `<!-- runnable -->`: a shell block. `<!-- runnable in the background -->`: a Node.js program, which runs until
 * the end of the page. `<!-- answer -->`: what the runnable block before it prints (see answers.ts).
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { startRedis, uniquePrefix } from '../helpers/redis.ts'
import { differences, substitute } from './answers.ts'
import { blocksOf } from './markdown.ts'

const run = promisify(execFile)
const BLOCK_TIMEOUT_MS = 40_000
/** What the documents use as the address of the service. */
const SHOWN_ADDRESS = /\b(localhost|127\.0\.0\.1):3000\b/g

const redis = await startRedis()
t.teardown(() => redis.stop())

for (const page of ['README.md', 'docs/quickstart.md']) {
  t.test(`the runnable blocks of ${page} print the answers that it shows`, async (t) => {
    const { address, folder } = await startService(t)
    const values = new Map<string, string>()
    const blocks = blocksOf(await readFile(page, 'utf8'))
    t.ok(blocks.filter(({ mark }) => mark === 'runnable').length >= 3, 'there are runnable blocks')
    let printed = ''
    for (const { mark, text, line } of blocks) {
      const program = substitute(text, values).replace(SHOWN_ADDRESS, address)
      if (mark === 'runnable') printed = await runShell(program)
      else if (mark === 'runnable in the background')
        await startProgram(t, join(folder, 'program.mjs'), program)
      else if (mark === 'answer') t.same(differences(text, printed, values), [], `${page}:${line}`)
      else if (/runnable|answer/.test(mark)) t.fail(`${page}:${line}: unknown mark ${mark}`)
    }
  })
}

async function runShell(program: string): Promise<string> {
  const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', program], { timeout: BLOCK_TIMEOUT_MS })
  return stdout
}

async function startProgram(t: Test, path: string, program: string): Promise<void> {
  await writeFile(path, program)
  const child = spawn(process.execPath, [path], { stdio: ['ignore', 'inherit', 'inherit'] })
  t.teardown(() => stop(child))
}

/** A service on a free port, with nothing of this machine's settings. */
async function startService(t: Test): Promise<{ address: string; folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-docs-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/server.ts'], {
    env: {
      PATH: process.env['PATH'] ?? '',
      PORT: '0',
      REPLICAS: '1',
      REDIS_URL: `unix://${redis.socket}`,
      QUEUE_PREFIX: uniquePrefix(),
      DATA_DIR: folder,
      API_KEYS_FILE: join(folder, 'keys.json'),
      MAX_EVENT_LOOP_DELAY: '0',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => stop(child))
  for await (const text of createInterface({ input: child.stdout })) {
    const address = /Server listening at http:\/\/([^"]+)/.exec(text)?.[1]
    if (address === undefined) continue
    child.stdout.resume()
    return { address, folder }
  }
  throw new Error('the service ended before it listened')
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  await once(child, 'exit')
}

t.test(
  'another status, header, field or value is a difference; another id, time or tag is none',
  async (t) => {
    const shown =
      'HTTP/1.1 200 OK\netag: "CcJXbnxJ70ClAhHhm_XlUaJ7FmY"\n\n{"id":"q:1","at":"2026-11-20T09:30:00.000Z"}'
    const values = new Map<string, string>()
    const printed = shown.replace('CcJX', 'AAAA').replace('09:30', '10:31')
    t.same(differences(shown, printed, values), [])
    t.equal(values.get('CcJXbnxJ70ClAhHhm_XlUaJ7FmY'), 'AAAAbnxJ70ClAhHhm_XlUaJ7FmY')
    t.equal(substitute('If "CcJXbnxJ70ClAhHhm_XlUaJ7FmY"', values), 'If "AAAAbnxJ70ClAhHhm_XlUaJ7FmY"')
    for (const changed of [
      shown.replace('200 OK', '201 Created'),
      shown.replace('etag', 'tag'),
      shown.replace('q:1', 'q:2'),
      shown.replace('"at"', '"when"'),
      shown.replace(',"at":"2026-11-20T09:30:00.000Z"', ''),
      shown.replace('"2026-11-20T09:30:00.000Z"', 'null'),
      shown.replace('}', ',"more":1}'),
    ])
      t.not(differences(shown, changed, values).length, 0, changed)
  },
)
