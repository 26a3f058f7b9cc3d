/** Error messages, stack traces and log lines that are too long are stored cut: a worker that reports one must not lose its job. */

/** Most characters (UTF-16 code units) of such a text that are stored, with the mark. */
export const TEXT_MAX = 65_536

/** The text itself, or its start and a mark that says how long it was. No surrogate pair is cut in half. */
export function truncateText(text: string): string {
  if (text.length <= TEXT_MAX) return text
  const mark = `… [truncated from ${text.length} characters]`
  let end = TEXT_MAX - mark.length
  if (isHighSurrogate(text, end - 1)) end--
  return text.slice(0, end) + mark
}

function isHighSurrogate(text: string, at: number): boolean {
  return (text.charCodeAt(at) & 0xfc00) === 0xd800
}
