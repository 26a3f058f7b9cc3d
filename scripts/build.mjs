/**
 * `npm run build`: compiles src to dist and copies the Lua scripts beside their loaders.
 *   --if-needed  for `npm start`: only when dist is missing or older than a source file
 *   --load       compiles src and load to .load, so that benchmarks run compiled code and not a loader's output
 */
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const forLoad = process.argv.includes('--load')
const ifNeeded = process.argv.includes('--if-needed')
const out = forLoad ? '.load' : 'dist'
const sources = forLoad ? join(out, 'src') : out
const config = `scripts/tsconfig.${forLoad ? 'load' : 'build'}.json`
const stamp = join(out, '.built')
const inputs = [
  ...filesUnder('src'),
  ...(forLoad ? filesUnder('load') : []),
  'package.json',
  'tsconfig.json',
  config,
]

if (ifNeeded && existsSync(stamp)) {
  const built = statSync(stamp).mtimeMs
  if (inputs.every((file) => statSync(file).mtimeMs <= built)) process.exit(0)
}
if (!ifNeeded) rmSync(out, { recursive: true, force: true })
process.stderr.write('building …\n')
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', config], { stdio: 'inherit' })
mkdirSync(join(sources, 'redis/scripts'), { recursive: true })
cpSync('src/redis/scripts', join(sources, 'redis/scripts'), { recursive: true })
if (forLoad) cpSync('package.json', join(out, 'package.json'))
writeFileSync(stamp, '')

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}
