/**
 * One client that follows a job or a queue by server-sent events:
 *
 *   subscribe ─ Last-Event-ID still in the stream ─ what was missed ─┐
 *             └ otherwise (told as a gap) ─ snapshot ────────────────┴ what came meanwhile ─ live ─ gap → snapshot → live
 *
 * Subscribed first, and the snapshot read at a known place in the stream, so that no event is missed or told twice.
 */
import { isAfter } from '../redis/streams/stream-position.ts'
import { frameOf, frameOfEvent, frameOfGap } from './event-frames.ts'
import type { EventHistory } from './event-history.ts'
import type { GapReason, QueueEvent, QueueEvents } from './queue-events.ts'

/** Where the frames go. */
export interface FrameSink {
  send(frame: string): void
  /** Resolves when the client has taken what was sent, or has gone. */
  drained(): Promise<void>
  end(): void
  readonly isClosed: boolean
  onClose(listener: () => void): void
}

export interface Snapshot {
  /** JSON text. */
  data: string
  /** The place in the stream: what an event up to here tells is in it. */
  position: string
  /** Nothing more will happen. */
  isOver: boolean
}

export interface FollowRequest {
  queue: string
  /** Of one job alone; then its end is the end of the stream. */
  key?: string
  lastEventId?: string | undefined
  /** Rejects when there is nothing to follow. `subscribedAt`: the place from which on events are heard. */
  snapshot(subscribedAt: string): Promise<Snapshot>
  /** From here on nothing can be answered but frames. */
  open(): FrameSink
}

export interface EventFollower {
  /** `over`: the client had seen the end already, nothing was opened, and it need not come again. */
  follow(request: FollowRequest): Promise<'following' | 'over'>
}

/** What happens while a client is brought up to date; past it, it is given a gap and a snapshot instead. */
const HELD_MAX = 10_000

export function createEventFollower(
  events: Pick<QueueEvents, 'subscribe'>,
  history: EventHistory,
): EventFollower {
  let framed: QueueEvent | undefined
  let frame = ''
  /** Made once for all who follow. */
  function toFrame(event: QueueEvent): string {
    if (event !== framed) {
      framed = event
      frame = frameOfEvent(event)
    }
    return frame
  }

  return {
    async follow(request) {
      const { queue, key, lastEventId } = request
      let sink: FrameSink | undefined
      /** What is heard while the client is brought up to date; `undefined` once it is. */
      let held: QueueEvent[] | undefined = []
      let gap: GapReason | 'expired' | undefined

      const subscription = await events.subscribe(
        queue,
        {
          onEvent(event) {
            if (!held) return tell(event)
            if (held.push(event) <= HELD_MAX) return
            gap = 'expired'
            held = []
          },
          onGap(reason) {
            // After a reconnect it is read on from where it was.
            if (reason === 'reconnected') return
            gap = reason
            if (held) return
            held = []
            goLive(subscription.position).catch(() => sink?.end())
          },
        },
        key,
      )

      function tell(event: QueueEvent): void {
        if (!sink || sink.isClosed) return
        sink.send(toFrame(event))
        if (key !== undefined && ['completed', 'failed', 'removed'].includes(event.event)) sink.end()
      }

      /** Until nothing is held any more and no gap has come in between. */
      async function goLive(place: string): Promise<void> {
        let upTo = place
        while (held && !sink?.isClosed) {
          if (gap !== undefined) {
            held = []
            upTo = await sendSnapshot()
            continue
          }
          const heldNow = held
          held = undefined
          for (const event of heldNow) if (isAfter(event.id, upTo)) tell(event)
        }
      }

      async function sendSnapshot(): Promise<string> {
        const told = gap
        gap = undefined
        const { data, position: place, isOver } = await request.snapshot(subscription.position)
        sink ??= open()
        if (told !== undefined) sink.send(frameOfGap(told))
        sink.send(frameOf('snapshot', data, place))
        if (isOver) sink.end()
        return place
      }

      function open(): FrameSink {
        const opened = request.open()
        opened.onClose(() => subscription.close())
        return opened
      }

      /** What was missed since `lastEventId`; `false` when nobody can say. */
      async function resume(after: string): Promise<boolean> {
        const pages = await history.since(queue, after, subscription.position)
        if (!pages) return false
        for await (const page of pages) {
          if (page === 'gap') return false
          const wanted = key === undefined ? page : page.filter((event) => event.key === key)
          if (wanted.length === 0) continue
          sink ??= open()
          for (const event of wanted) {
            tell(event)
            // At the client's pace: what was missed may be much.
            await sink.drained()
          }
          if (sink.isClosed) break
        }
        return true
      }

      try {
        let { position: place } = subscription
        let isOver = false
        if (lastEventId !== undefined && (await resume(lastEventId))) {
          if (key !== undefined) {
            const now = await request.snapshot(place)
            isOver = now.isOver
            // Its end is not after what was missed, so the client has seen it.
            if (isOver && !sink && now.position === place) {
              subscription.close()
              return 'over'
            }
          }
          sink ??= open()
        } else {
          if (lastEventId !== undefined) gap = 'expired'
          place = await sendSnapshot()
        }
        await goLive(place)
        // Nothing more will come; had its end not been heard yet, whoever comes back is told.
        if (isOver) (sink as FrameSink | undefined)?.end()
        return 'following'
      } catch (error) {
        subscription.close()
        if (!sink) throw error
        ;(sink as FrameSink).end()
        return 'following'
      }
    },
  }
}
