/** Hears of a queue, from when Redis can be asked where its stream stands: also when it cannot at first. */
import type { EventSubscription, QueueEvents, QueueListener } from '../events/queue-events.ts'

export interface QueueSubscription {
  /** Whether what happens reaches the listener within a moment. */
  isLive(): boolean
  end(): void
}

export const RESUBSCRIBE_MS = 1_000

/** `onBegin`: from now on it is heard; what came before was not. */
export function subscribeWhenAvailable(
  events: Pick<QueueEvents, 'subscribe' | 'feed'>,
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
    isLive: () => subscription !== undefined && (events.feed(queue)?.isLive ?? false),
    end() {
      hasEnded = true
      clearTimeout(timer)
      subscription?.close()
    },
  }
}
