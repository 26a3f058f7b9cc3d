/** Waiting: for a condition that another process brings about, or for time to pass where time is what is tested. */
export { setTimeout as sleep } from 'node:timers/promises'

/** Asks every `everyMs` until the answer is yes; throws, saying what was waited for, when it takes too long. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 15_000,
  everyMs = 10,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
}
