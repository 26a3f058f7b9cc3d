/** A status line on stderr, rewritten in place; silent without a terminal. */
const { stderr } = process

export function progress(text: string): void {
  if (stderr.isTTY) stderr.write(`\r\u001b[K${text}`)
}

export function endProgress(): void {
  if (stderr.isTTY) stderr.write('\r\u001b[K')
}
