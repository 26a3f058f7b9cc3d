/** Who is at the same thing at the same time: what one has done can be looked for only while nobody else is at it. */
export interface Turn {
  /** Nobody else was at it since this turn began, nor is. */
  isAlone(): boolean
  end(): void
}

export function createTurns(): { begin(thing: string): Turn } {
  const all = new Map<string, { open: number; begun: number }>()
  return {
    begin(thing) {
      const one = all.get(thing) ?? { open: 0, begun: 0 }
      all.set(thing, one)
      const isFirst = one.open === 0
      const begun = ++one.begun
      one.open++
      let isOpen = true
      return {
        isAlone: () => isFirst && one.begun === begun,
        end() {
          if (isOpen) one.open--
          isOpen = false
        },
      }
    },
  }
}
