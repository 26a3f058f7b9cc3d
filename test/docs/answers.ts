/**
 * Compares what a command printed with the answer that a document shows. Statuses, header names, field names and plain
 * values must be equal; ids, times, tags and other opaque values may differ. Where one differs, `values` keeps the
 * real one, so that a later command of the document can use the value that the document shows.
 */

interface Response {
  status: string | undefined
  headers: [string, string][]
  body: string
}

/** The differences, one sentence each. `values`: real value by shown value, added to. */
export function differences(shown: string, printed: string, values: Map<string, string>): string[] {
  const [want, got] = [parse(shown), parse(printed)]
  const found: string[] = []
  if (want.status !== undefined && want.status !== got.status)
    found.push(`status ${got.status} instead of ${want.status}: ${got.body.trim()}`)
  const headers = new Map(got.headers)
  for (const [name, value] of want.headers)
    found.push(...compare(`header ${name}`, value, headers.get(name), values))
  if (want.body.trim() === '') return found
  return [...found, ...compare('body', json(want.body), json(got.body), values)]
}

/** `text` with every shown value replaced by the real one. */
export function substitute(text: string, values: Map<string, string>): string {
  let result = text
  for (const [shown, real] of values) result = result.replaceAll(shown, real)
  return result
}

function parse(text: string): Response {
  const normal = text.replaceAll('\r\n', '\n')
  if (!normal.startsWith('HTTP/1.1 ')) return { status: undefined, headers: [], body: normal }
  const end = normal.indexOf('\n\n')
  const [first = '', ...lines] = (end < 0 ? normal.trimEnd() : normal.slice(0, end)).split('\n')
  return {
    status: first.split(' ')[1],
    headers: lines.map((line) => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
    }),
    body: end < 0 ? '' : normal.slice(end + 2),
  }
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text.trim()
  }
}

function compare(path: string, want: unknown, got: unknown, values: Map<string, string>): string[] {
  if (typeof want === 'string' && typeof got === 'string') return compareText(path, want, got, values)
  if (!isComposite(want) || !isComposite(got) || Array.isArray(want) !== Array.isArray(got)) {
    return Object.is(want, got)
      ? []
      : [`${path} is ${JSON.stringify(got)} instead of ${JSON.stringify(want)}`]
  }
  const names = new Set([...Object.keys(want), ...Object.keys(got)])
  return [...names].flatMap((name) => {
    if (!(name in want)) return [`${path}.${name} is not shown`]
    if (!(name in got)) return [`${path}.${name} is missing`]
    return compare(`${path}.${name}`, want[name], got[name], values)
  })
}

function isComposite(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function compareText(path: string, want: string, got: string, values: Map<string, string>): string[] {
  if (mask(want) !== mask(got))
    return [`${path} is ${JSON.stringify(got)} instead of ${JSON.stringify(want)}`]
  const [shown, real] = [opaqueOf(want), opaqueOf(got)]
  for (const [index, value] of shown.entries()) if (value !== real[index]) values.set(value, real[index]!)
  return []
}

const UUID = '[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}'
const TIME = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z'
const OPAQUE = '(?:whsec_[A-Za-z0-9+/=…]+|[A-Za-z0-9_-]{20,}(?:\\.[A-Za-z0-9_-]+|…)?)'
/** Ids, times, seconds left, secrets, and base64url of 20 characters or more; `…` shortens a shown value. */
const VARYING = new RegExp(`${UUID}|${TIME}|ttl=\\d+|${OPAQUE}`, 'g')

function mask(text: string): string {
  return text.replace(VARYING, '<varies>')
}

function opaqueOf(text: string): string[] {
  return text.match(VARYING) ?? []
}
