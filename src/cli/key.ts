/** The process behind `npm run key`. */
import { loadDotEnv } from '../config/env-file.ts'
import { keyCommand } from './key-command.ts'
import { runCommand } from './run-command.ts'

loadDotEnv()
const { env, stdout, stderr } = process
process.exitCode = await runCommand(keyCommand, process.argv.slice(2), {
  env,
  print: (text) => stdout.write(text),
  printError: (text) => stderr.write(text),
  now: () => new Date(),
})
