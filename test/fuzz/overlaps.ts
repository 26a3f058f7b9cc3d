/** Detects concurrent requests on the same thing: the effect of one can be verified only if no other overlapped with it. */
export interface Span {
  /** True if no other request on the thing has overlapped with this one so far. */
  isAlone(): boolean
  end(): void
}

export function createOverlapTracker(): { begin(thing: string): Span } {
  const things = new Map<string, { open: number; begun: number }>()
  return {
    begin(thing) {
      const counts = things.get(thing) ?? { open: 0, begun: 0 }
      things.set(thing, counts)
      const isFirst = counts.open === 0
      const begun = ++counts.begun
      counts.open++
      let isOpen = true
      return {
        isAlone: () => isFirst && counts.begun === begun,
        end() {
          if (isOpen) counts.open--
          isOpen = false
        },
      }
    },
  }
}
