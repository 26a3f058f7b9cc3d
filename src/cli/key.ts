/** The process behind `npm run key`: its words, the file of the keys, what it prints, and the exit code. */

import { KeyFileError } from '../auth/key-file.ts'
import { ConfigError, loadConfig } from '../config/load.ts'
import { runKeyCommand } from './key-command.ts'

try {
  process.loadEnvFile('.env')
} catch {
  // There is none: the environment alone counts.
}

try {
  const { API_KEYS_FILE } = loadConfig(process.env)
  process.stdout.write(await runKeyCommand(process.argv.slice(2), API_KEYS_FILE, new Date()))
} catch (error) {
  if (!(error instanceof KeyFileError || error instanceof ConfigError)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
}
