/** The size of a text as a JSON string, without making it. */

const QUOTE = 0x22
const BACKSLASH = 0x5c

/** Bytes of `JSON.stringify(text)` in UTF-8. */
export function jsonStringBytes(text: string): number {
  let bytes = 2
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x20) bytes += '\b\t\n\f\r'.includes(text[i]!) ? 2 : 6
    else if (unit === QUOTE || unit === BACKSLASH) bytes += 2
    else if (unit < 0x80) bytes++
    else if (unit < 0x800) bytes += 2
    else if (unit < 0xd800 || unit > 0xdfff) bytes += 3
    else if (unit < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      bytes += 4
      i++
    } else bytes += 6
  }
  return bytes
}
