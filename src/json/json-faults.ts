/** Explains a fault of a JSON text: what is wrong at which byte, and the JSON Pointer of the value that holds it. */

/** What was expected at the fault, or the kind of token that is broken. */
export type SyntaxFault =
  | 'value'
  | 'name'
  | 'colon'
  | 'item end'
  | 'member end'
  | 'end'
  | 'string'
  | 'escape'
  | 'unicode escape'
  | 'digit'
  | 'literal'

const expectations: Record<SyntaxFault, string> = {
  value: 'Expected a value',
  name: 'Expected a member name in double quotes',
  colon: "Expected ':' after the member name",
  'item end': "Expected ',' or ']' after the item",
  'member end': "Expected ',' or '}' after the member",
  end: 'Expected nothing after the value',
  string: 'Expected the closing quote of the string',
  escape: 'Expected one of " \\ / b f n r t u after the backslash',
  'unicode escape': 'Expected four hexadecimal digits after \\u',
  digit: 'Expected a digit',
  literal: 'Expected true, false or null',
}

const QUOTE_CHARS = 20

/** A sentence without its full stop. `at`: the offset of the fault; the length of the text if that ends too early. */
export function describeSyntax(bytes: Buffer, at: number, fault: SyntaxFault): string {
  const expected = expectations[fault]
  if (at >= bytes.length) return `${expected}, but the text ends at byte ${bytes.length}`
  const byte = bytes[at]!
  if (fault === 'string') {
    const code = byte.toString(16).padStart(2, '0')
    return `A string contains the control character 0x${code} at byte ${at}${lineOf(bytes, at)}; escape it as \\u00${code}`
  }
  return `${expected}, but found ${quoteAt(bytes, at)} at byte ${at}${lineOf(bytes, at)}`
}

/** Line and column (in bytes, from 1), for a text of several lines. */
function lineOf(bytes: Buffer, at: number): string {
  let line = 1
  let lineAt = 0
  for (let end = bytes.indexOf(0x0a); end >= 0 && end < at; end = bytes.indexOf(0x0a, end + 1)) {
    line++
    lineAt = end + 1
  }
  return line === 1 ? '' : ` (line ${line}, column ${at - lineAt + 1})`
}

/** The start of what is at `at`, as a JSON string: control characters are escaped. */
function quoteAt(bytes: Buffer, at: number): string {
  // A character has at most four bytes; one that is cut off becomes U+FFFD and is dropped.
  const text = bytes.toString('utf8', at, at + 4 * QUOTE_CHARS)
  const chars = [...text.slice(0, 2 * QUOTE_CHARS)].slice(0, QUOTE_CHARS)
  return JSON.stringify(chars.join('').replace(/\ufffd+$/, ''))
}
