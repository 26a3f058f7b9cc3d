/** Runs a subcommand. `--help`, mistakes of the user and exit codes are handled the same way for all of them. */
import { KeyFileError } from '../auth/key-file.ts'
import { ConfigError } from '../config/load.ts'
import type { CliCommand, CliContext } from './cli-command.ts'

export interface ProcessContext extends CliContext {
  /** Writes to standard error. */
  printError(text: string): void
}

/** Resolves with the exit code: 0, or 1 after a mistake that the user can correct. Rejects with any other error. */
export async function runCommand(command: CliCommand, args: string[], context: ProcessContext) {
  if (args.includes('--help') || args.includes('-h')) {
    context.print(command.usage)
    return 0
  }
  try {
    await command.run(args, context)
    return 0
  } catch (error) {
    if (!(error instanceof KeyFileError || error instanceof ConfigError)) throw error
    context.printError(`${error.message}\n`)
    return 1
  }
}
