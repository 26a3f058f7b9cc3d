/**
 * `npm run build`: src → dist, with the Lua scripts beside their loader. `--if-needed`, for `npm start`: only when dist
 * is missing or older than anything in src.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const STAMP = 'dist/.built'
const inputs = [...filesUnder('src'), 'package.json', 'tsconfig.json', 'scripts/tsconfig.build.json']

if (process.argv.includes('--if-needed') && existsSync(STAMP)) {
  const built = statSync(STAMP).mtimeMs
  if (inputs.every((file) => statSync(file).mtimeMs <= built)) process.exit(0)
}
if (!process.argv.includes('--if-needed')) rmSync('dist', { recursive: true, force: true })
process.stderr.write('building …\n')
execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'scripts/tsconfig.build.json'], {
  stdio: 'inherit',
})
mkdirSync('dist/redis/scripts', { recursive: true })
cpSync('src/redis/scripts', 'dist/redis/scripts', { recursive: true })
writeFileSync(STAMP, '')

function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}
