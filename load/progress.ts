/** One line on stderr that says what is measured now; it is written over where there is a terminal. */
const { stderr } = process

export function progress(text: string): void {
  if (stderr.isTTY) stderr.write(`\r\u001b[K${text}`)
}

export function endProgress(): void {
  if (stderr.isTTY) stderr.write('\r\u001b[K')
}
