/**
 * `npm run test:runtimes [-- 22 26]`: the quick tests on each supported Node.js release, the service built once. The binaries
 * come as npm packages, fetched on demand into `.runtimes/`, which is ignored; Node.js itself need not be installed twice.
 * Ends with 1 when a release fails.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'

/** The releases that the README names as supported. */
const SUPPORTED = ['22', '24', '26']

const wanted = process.argv.slice(2)
const releases = wanted.length > 0 ? wanted : SUPPORTED
const failed = releases.filter((release) => !passes(release))
if (failed.length > 0) {
  process.stderr.write(`failed on Node.js ${failed.join(', ')}\n`)
  process.exitCode = 1
}

function passes(release) {
  const node = fetchNode(release)
  const version = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()
  process.stdout.write(`\n# Node.js ${version}\n`)
  const { status } = spawnSync(node, ['scripts/test.mjs', '--quick'], {
    stdio: 'inherit',
    // Processes that a test starts by name run on the same release.
    env: { ...process.env, PATH: `${resolve(node, '..')}:${process.env.PATH}` },
  })
  return status === 0
}

/** Path of the `node` binary of a release. */
function fetchNode(release) {
  const name = `node-${process.platform}-${process.arch}`
  const folder = join('.runtimes', release)
  const node = resolve(folder, 'node_modules', name, 'bin/node')
  if (!existsSync(node)) {
    process.stderr.write(`fetching ${name}@${release} …\n`)
    const flags = ['--no-save', '--no-audit', '--no-fund', '--loglevel=error']
    execFileSync('npm', ['install', '--prefix', folder, ...flags, `${name}@${release}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  }
  return node
}
