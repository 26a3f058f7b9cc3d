/**
 * `npm test`: all tests. `npm run test:quick`: those of the groups, in less than a minute on two cores. With arguments of its own,
 * such as the path of a test file, `npm test` is `tap`. The reporter's last line counts what passed and failed.
 */
import { spawnSync } from 'node:child_process'

const args = process.argv.slice(2)
const isPartial = args.length > 0 && args[0] !== '--quick'
const whole = ['scripts/test-processes.mjs', '--timeout=0', ...args.map((arg) => `--test-arg=${arg}`)]
const { status } = spawnSync(
  process.execPath,
  ['node_modules/tap/dist/esm/run.mjs', ...(isPartial ? args : whole)],
  { stdio: 'inherit' },
)
process.exitCode = status ?? 1
