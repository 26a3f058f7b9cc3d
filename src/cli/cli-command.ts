/** What a subcommand of the command line provides. Only the entry points (key.ts) touch the process. */
export interface CliContext {
  env: Record<string, string | undefined>
  /** Writes to standard output. */
  print(text: string): void
  now(): Date
}

export interface CliCommand {
  /** The word that selects it. */
  name: string
  /** One line for the list of commands. */
  summary: string
  /** What `--help` prints. */
  usage: string
  /** `args`: the words after the command's name. Rejects with an error whose message is for the user. */
  run(args: string[], context: CliContext): Promise<void>
}

/** A mistake in the arguments: its message is printed as it is, without a stack trace, and the process exits with 1. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'UsageError'
  }
}
