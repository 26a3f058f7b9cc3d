/** The interface of a subcommand. Subcommands use their context; only the entry points touch the process. */
export interface CliContext {
  /** As in process.env. */
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
  /** `args`: the words after the command's name. Rejects with a KeyFileError or a ConfigError for mistakes of the user. */
  run(args: string[], context: CliContext): Promise<void>
}
