/** The order in which a call for many jobs writes them: job by job within a queue, and a bounded number of queues at once. */

/** The entries of one queue, in the order of the call. */
export interface QueueGroup<Entry> {
  queue: string
  entries: Entry[]
}

/** Groups `entries` by queue, and the queues, in order of appearance, into waves of at most `queuesMax`. */
export function planWaves<Entry extends { queue: string }>(
  entries: Entry[],
  queuesMax: number,
): QueueGroup<Entry>[][] {
  const groups = new Map<string, QueueGroup<Entry>>()
  const waves: QueueGroup<Entry>[][] = []
  for (const entry of entries) {
    const known = groups.get(entry.queue)
    if (known) {
      known.entries.push(entry)
      continue
    }
    const group = { queue: entry.queue, entries: [entry] }
    groups.set(entry.queue, group)
    const wave = waves.at(-1)
    if (wave && wave.length < queuesMax) wave.push(group)
    else waves.push([group])
  }
  return waves
}
