/** docs/reference/configuration.md: every setting with its default, from src/config/schema.ts. */
import { aliases, settingGroups } from '../src/config/schema.ts'
import { settingsTable } from './env-example.ts'

export function configurationReference(): string {
  const groups = settingGroups.map(
    ({ title, settings }) => `## ${headingOf(title)}\n\n${settingsTable(settings).trim()}\n`,
  )
  return [PREAMBLE, ...groups, aliasSection()].join('\n')
}

const PREAMBLE = `# Configuration

Settings are environment variables. The service also reads a \`.env\` file in its working directory; a variable that is
set in the environment wins. \`.env.example\` lists the same settings as a file to copy. An empty variable counts as unset.

An invalid value stops the start with exit code 1. The message names every invalid variable and never repeats a value,
because a value may be a secret.

Some settings are required or checked together:

- \`SECRET\` is required when \`NODE_ENV=production\` and \`REDIS_URL\` is set. Use the same value for every process of the
  service.
- \`HOST\` other than loopback requires API keys, or \`ALLOW_ANONYMOUS=true\`.
- \`REDIS_COMMAND_TIMEOUT\` must be more than twice \`DURABILITY_TIMEOUT\` when \`DURABILITY_REPLICAS\` is above 0.
- \`REDIS_TLS_CERT\` and \`REDIS_TLS_KEY\` are set together. Both, and \`REDIS_TLS_CA\`, require a \`REDIS_URL\` that starts
  with \`rediss://\`.
- \`REDIS_RESERVED_CONNECTIONS\` must be below \`REDIS_PROVIDER_LIMIT\`, unless \`REDIS_POOL_ABSOLUTE_MAX\` is set.
- The process opens \`REDIS_POOL_SIZE\` + 2 Redis connections (+ 1 with \`DURABILITY_REPLICAS\`) and refuses to start when
  that exceeds its [connection budget](../operations/scaling.md#connection-budget).
`

function headingOf(title: string): string {
  return title.split(' (', 1)[0]!
}

/** Names that other deployments of BullMQ use, which the service accepts. */
function aliasSection(): string {
  const rows = Object.entries(aliases).map(([alias, name]) => `| \`${alias}\` | \`${name}\` |`)
  return `## Aliases

These names are accepted too. When an alias and its setting are both set, the setting wins.

| Alias | Setting |
| --- | --- |
${rows.join('\n')}
`
}
