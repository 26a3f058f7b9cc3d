/** The JSON Pointer (RFC 6901) of a place in a valid JSON text. Only for explaining a fault: it reads the text again. */

const QUOTE = 0x22
const BACKSLASH = 0x5c
/** Longer names are cut, so that a pointer stays short. */
const NAME_BYTES = 100

/** One container on the way to the place. */
interface Step {
  isArray: boolean
  index: number
  /** The range of the last member name, with its quotes. */
  nameAt: number
  nameEnd: number
}

/** Of the value, or of the member whose name, is at `place`; relative to the value at `from`. */
export function pointerTo(bytes: Buffer, from: number, place: number): string {
  const steps: Step[] = []
  let isName = false
  for (let at = from; at <= place; at++) {
    const byte = bytes[at]
    const step = steps.at(-1)
    if (byte === QUOTE) {
      const end = closingQuote(bytes, at)
      if (isName && step) {
        step.nameAt = at
        step.nameEnd = end + 1
        isName = false
      }
      at = end
    } else if (at === place) break
    else if (byte === 0x7b || byte === 0x5b) {
      steps.push({ isArray: byte === 0x5b, index: 0, nameAt: 0, nameEnd: 0 })
      isName = byte === 0x7b
    } else if (byte === 0x7d || byte === 0x5d) steps.pop()
    else if (byte === 0x2c && step) {
      step.index++
      isName = !step.isArray
    }
  }
  return steps.map((step) => `/${step.isArray ? step.index : nameOf(bytes, step)}`).join('')
}

function nameOf(bytes: Buffer, { nameAt, nameEnd }: Step): string {
  const isCut = nameEnd - nameAt > NAME_BYTES
  const name = isCut
    ? `${bytes.toString('utf8', nameAt + 1, nameAt + NAME_BYTES).replace(/\ufffd+$/, '')}…`
    : (JSON.parse(bytes.toString('utf8', nameAt, nameEnd)) as string)
  return name.replaceAll('~', '~0').replaceAll('/', '~1')
}

/** The offset of the quote that closes the string that starts at `from`. */
function closingQuote(bytes: Buffer, from: number): number {
  for (let end = bytes.indexOf(QUOTE, from + 1); end >= 0; end = bytes.indexOf(QUOTE, end + 1)) {
    let escapes = 0
    while (bytes[end - 1 - escapes] === BACKSLASH) escapes++
    if (escapes % 2 === 0) return end
  }
  return bytes.length
}
