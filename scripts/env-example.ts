/**
 * `npm run env:example`: writes `.env.example` from the schema of the settings, so that neither can say what the other
 * does not. The README's table of settings comes from here too. A test fails when the file is stale.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { SettingSchema } from '../src/config/load.ts'
import { aliases, type Config, ConfigSchema } from '../src/config/schema.ts'

const settings = Object.entries<SettingSchema>(ConfigSchema.properties)

/** The schema is one flat object; where a group begins is known here, and a name that is gone does not compile. */
const groups: Partial<Record<keyof Config, string>> = {
  NODE_ENV: 'The process',
  BODY_LIMIT: 'HTTP limits',
  QUEUE_PREFIX: 'Queues',
  ENQUEUE_BATCH_MAX: 'Enqueueing',
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

/** The same as a Markdown table. */
export function settingsTable(): string {
  const rows = settings.map(([name, setting]) => {
    const others = aliasesOf(name).map((alias) => `\`${alias}\``)
    const also = others.length > 0 ? ` Also read from ${others.join(' and ')}.` : ''
    const fallback = setting.default === undefined ? 'unset' : `\`${String(setting.default)}\``
    return [`\`${name}\``, fallback, `${setting.description} ${bounds(setting, '`')}${also}`]
  })
  return [['Variable', 'Default', 'Meaning'], ['---', '---', '---'], ...rows]
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`)
    .join('')
}

/** `quote`: what stands around a value, for Markdown. */
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

/** The README with the table of settings as it is now. */
export function withSettings(readme: string): string {
  const table = `<!-- settings -->\n${settingsTable().trim()}\n<!-- /settings -->`
  return readme.replace(/<!-- settings -->[\s\S]*<!-- \/settings -->/, () => table)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const fileOf = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url))
  await writeFile(fileOf('.env.example'), envExample())
  await writeFile(fileOf('README.md'), withSettings(await readFile(fileOf('README.md'), 'utf8')))
}
