/** The listeners of queues and jobs. One that throws stops neither the other listeners nor the read of the other queues. */

interface Listener<Event, Reason> {
  onEvent(event: Event): void
  onGap(reason: Reason): void
}

interface AnyListener<Event, Reason> {
  onEvent(event: Event): void
  onGap(queue: string, reason: Reason): void
}

export interface EventListeners<Event, Reason> {
  /** Adds a listener to every queue, which is called before the others. */
  addAny(listener: AnyListener<Event, Reason>): void
  /** `key`: of a job; `undefined`: the whole queue. Returns the function that removes the listener. */
  add(queue: string, key: string | undefined, listener: Listener<Event, Reason>): () => void
  deliver(event: Event): void
  /** `toWholeQueue`: also to the listeners of the whole queue. */
  deliverGap(queue: string, reason: Reason, toWholeQueue: boolean): void
}

/** The key of listeners to a whole queue; no job has it. */
const WHOLE_QUEUE = ''

export function createEventListeners<Event extends { queue: string; key: string | undefined }, Reason>(
  onError: (queue: string, error: unknown) => void,
): EventListeners<Event, Reason> {
  const anyListeners: AnyListener<Event, Reason>[] = []
  /** By queue, then by job key. */
  const byQueue = new Map<string, Map<string, Set<Listener<Event, Reason>>>>()

  function attempt(queue: string, call: () => void): void {
    try {
      call()
    } catch (error) {
      onError(queue, error)
    }
  }

  return {
    addAny: (listener) => anyListeners.push(listener),
    add(queue, key = WHOLE_QUEUE, listener) {
      const ofQueue = byQueue.get(queue) ?? new Map<string, Set<Listener<Event, Reason>>>()
      const ofKey = ofQueue.get(key) ?? new Set()
      byQueue.set(queue, ofQueue.set(key, ofKey.add(listener)))
      return () => {
        if (!ofKey.delete(listener) || ofKey.size > 0) return
        ofQueue.delete(key)
        if (ofQueue.size === 0) byQueue.delete(queue)
      }
    },
    deliver(event) {
      const { queue, key } = event
      for (const listener of anyListeners) attempt(queue, () => listener.onEvent(event))
      const ofQueue = byQueue.get(queue)
      if (!ofQueue) return
      for (const listener of ofQueue.get(WHOLE_QUEUE) ?? []) attempt(queue, () => listener.onEvent(event))
      if (key === undefined || key === WHOLE_QUEUE) return
      for (const listener of ofQueue.get(key) ?? []) attempt(queue, () => listener.onEvent(event))
    },
    deliverGap(queue, reason, toWholeQueue) {
      for (const listener of anyListeners) attempt(queue, () => listener.onGap(queue, reason))
      for (const [key, ofKey] of byQueue.get(queue) ?? []) {
        if (key === WHOLE_QUEUE && !toWholeQueue) continue
        for (const listener of ofKey) attempt(queue, () => listener.onGap(reason))
      }
    },
  }
}
