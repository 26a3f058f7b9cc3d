/**
 * The one file that tap runs for `npm test`: starts each group of test files, and each file with a process of its own, two at a
 * time. tap itself would start them with import hooks for mocks and coverage, which are not used here and cost each process
 * seconds of CPU time.
 */
import t from 'tap'
import { groupTestFiles } from './test-groups.mjs'

const JOBS = 2
/** Of each process, several times what it takes on a machine without other load. */
const TIMEOUT_S = 120
const GROUP_TIMEOUT_S = 300
const QUICK_GROUPS = 2
const GROUPS = 6

const isQuick = process.argv.includes('--quick')
const { groups, alone } = groupTestFiles(isQuick ? QUICK_GROUPS : GROUPS)

t.jobs = JOBS
for (const file of isQuick ? groups : [...groups, ...alone]) {
  const timeoutS = groups.includes(file) ? GROUP_TIMEOUT_S : TIMEOUT_S
  // tap has started this file without a time limit, and its own default is shorter.
  const env = { ...process.env, TAP_TIMEOUT: `${timeoutS}` }
  // tap names its hook for coverage in NODE_OPTIONS, whatever `env` says.
  const program = ['-u', 'NODE_OPTIONS', process.execPath, '--import=tsx', file]
  t.spawn('env', program, { env, timeout: timeoutS * 1_000, buffered: true }, file)
}
