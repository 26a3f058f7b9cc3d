/** Subscribes to the events of a queue, and retries while Redis is unavailable. */
import type { EventSubscription, QueueEvents, QueueListener } from '../events/queue-events.ts'

export interface QueueSubscription {
  /** Whether events reach the listener within a moment. */
  isLive(): boolean
  end(): void
}

export const RESUBSCRIBE_MS = 1_000

/** `onBegin`: called once the listener receives events; earlier events were missed. */
export function subscribeWhenAvailable(
  events: Pick<QueueEvents, 'subscribe'>,
  queue: string,
  listener: QueueListener,
  onBegin: () => void,
): QueueSubscription {
  let subscription: EventSubscription | undefined
  let timer: NodeJS.Timeout | undefined
  let hasEnded = false

  async function begin(): Promise<void> {
    const begun = await events.subscribe(queue, listener).catch(() => undefined)
    if (hasEnded) {
      begun?.close()
      return
    }
    subscription = begun
    if (begun) onBegin()
    else timer = setTimeout(() => void begin(), RESUBSCRIBE_MS)
  }

  void begin()
  return {
    isLive: () => subscription?.isLive() ?? false,
    end() {
      hasEnded = true
      clearTimeout(timer)
      subscription?.close()
    },
  }
}
