/**
 * `npm run env:example`: writes `.env.example` from the schema of the settings. The tables of
 * docs/reference/configuration.md are built here too. Tests fail when either file is stale.
 */
import { writeFile } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { SettingSchema } from '../src/config/load.ts'
import { aliases, type Config, ConfigSchema } from '../src/config/schema.ts'

const settings = Object.entries<SettingSchema>(ConfigSchema.properties)

/** The first setting of each group. The schema is one flat object; a name that no longer exists does not compile. */
const groups: Partial<Record<keyof Config, string>> = {
  NODE_ENV: 'The process',
  BODY_LIMIT: 'HTTP limits',
  QUEUE_PREFIX: 'Queues',
  ENQUEUE_BATCH_MAX: 'Enqueueing',
  MAX_STALLED_COUNT: 'HTTP workers and webhooks',
  CACHE_MAX_BYTES: 'The cache; all CACHE_TTL_* at 0 switch it off',
  REDIS_URL: 'Redis',
}

const LINE_LENGTH = 110

export function envExample(): string {
  const lines = [
    'Every setting with its default. Copy this file to .env and uncomment what should differ.',
    'Made by `npm run env:example` from src/config/schema.ts.',
  ].map((line) => `# ${line}`)
  for (const [name, setting] of settings) {
    const group = groups[name as keyof Config]
    lines.push('', ...(group === undefined ? [] : [`# ${group}`, '']))
    lines.push(...wrap(setting.description ?? ''), ...wrap(bounds(setting)))
    const others = aliasesOf(name)
    if (others.length > 0) lines.push(...wrap(`Also read from ${others.join(' and ')}.`))
    lines.push(`# ${name}=${String(setting.default ?? '')}`)
  }
  return `${lines.join('\n')}\n`
}

export type Setting = [name: string, schema: SettingSchema]

/** All settings in the order of the schema, by group. */
export function settingGroups(): { title: string; settings: Setting[] }[] {
  const grouped: { title: string; settings: Setting[] }[] = []
  for (const setting of settings) {
    const title = groups[setting[0] as keyof Config]
    if (title !== undefined || grouped.length === 0) grouped.push({ title: title ?? '', settings: [] })
    grouped.at(-1)!.settings.push(setting)
  }
  return grouped
}

/** Settings as a Markdown table. */
export function settingsTable(of: Setting[] = settings): string {
  const rows = of.map(([name, setting]) => {
    const others = aliasesOf(name).map((alias) => `\`${alias}\``)
    const also = others.length > 0 ? ` Also read from ${others.join(' and ')}.` : ''
    const fallback = setting.default === undefined ? 'unset' : `\`${String(setting.default)}\``
    return [`\`${name}\``, fallback, `${setting.description} ${bounds(setting, '`')}${also}`.trim()]
  })
  return [['Variable', 'Default', 'Meaning'], ['---', '---', '---'], ...rows]
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`)
    .join('')
}

/** `quote` surrounds each value, for Markdown. */
function bounds({ type, enum: values, minimum, maximum, pattern }: SettingSchema, quote = ''): string {
  const quoted = (value: string) => `${quote}${value}${quote}`
  if (values) return `One of ${values.map(quoted).join(', ')}.`
  if (type === 'boolean') return `${quoted('true')} or ${quoted('false')}.`
  if (type === 'integer') return `${minimum} to ${maximum}.`
  return pattern === undefined ? '' : `Matches ${quoted(pattern)}`
}

function aliasesOf(name: string): string[] {
  return Object.keys(aliases).filter((alias) => aliases[alias] === name)
}

function wrap(text: string): string[] {
  const lines: string[] = []
  let line = '#'
  for (const word of text.split(' ')) {
    if (word === '') continue
    if (line.length + 1 + word.length > LINE_LENGTH) {
      lines.push(line)
      line = '#'
    }
    line += ` ${word}`
  }
  return line === '#' ? lines : [...lines, line]
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await writeFile(fileURLToPath(new URL('../.env.example', import.meta.url)), envExample())
}
