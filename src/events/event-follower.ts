/**
 * Follows a job or a queue for one client by server-sent events:
 *
 *   subscribe ─ Last-Event-ID is still in the stream → missed events ─┐
 *             └ otherwise → gap (if it was sent), snapshot ───────────┴→ events since then → live ─ gap → snapshot …
 *
 * It subscribes first and knows the position of each snapshot, so that no event is missed or sent twice. follow-state.ts
 * has the states in between.
 */
import { type FollowedEvent, frameOf, frameOfEvent, frameOfGap, isNamed } from './event-frames.ts'
import type { EventHistory } from './event-history.ts'
import {
  clearBuffer,
  goLive,
  isLastEvent,
  receiveEvent,
  receiveGap,
  startCatchingUp,
  takeGap,
} from './follow-state.ts'
import type { EventSubscription, QueueEvent, QueueEvents, QueueListener } from './queue-events.ts'

/** The response to which frames are sent. */
export interface FrameSink {
  send(frame: string): void
  /** Resolves when the client has received every frame, or has disconnected. */
  drained(): Promise<void>
  end(): void
  readonly isClosed: boolean
  onClose(listener: () => void): void
}

export interface Snapshot {
  /** JSON text. */
  data: string
  /** Position in the stream: the snapshot reflects every event up to it. */
  position: string
  /** No further event will follow. */
  isOver: boolean
}

export interface FollowRequest {
  queue: string
  /** Follows this job only; the stream then ends with the job. */
  key?: string
  lastEventId?: string | undefined
  /** `subscribedAt`: the position after which events are delivered. Rejects if there is nothing to follow. */
  snapshot(subscribedAt: string): Promise<Snapshot>
  /** Sends the response headers: from here on an error can only end the stream. */
  open(): FrameSink
}

export interface EventFollower {
  /**
   * Resolves when the client is live. `over`: the client had seen the end, so nothing was opened. Rejects with what
   * `snapshot` or the subscription rejects with, as long as nothing was opened.
   */
  follow(request: FollowRequest): Promise<'following' | 'over'>
}

export function createEventFollower(
  events: Pick<QueueEvents, 'subscribe'>,
  history: EventHistory,
  /** Most bytes of the values in a frame, and of the events that are buffered for a client. */
  maxBytes: number,
): EventFollower {
  let lastEvent: QueueEvent | undefined
  let lastFrame = ''

  /** Clients that follow the same job or queue share the frame of an event. */
  function toFrame(event: FollowedEvent): string {
    if (event !== lastEvent) {
      lastEvent = event
      lastFrame = frameOfEvent(event, maxBytes)
    }
    return lastFrame
  }

  async function follow(request: FollowRequest): Promise<'following' | 'over'> {
    const session = createSession(request, history, toFrame, maxBytes)
    const subscription = await events.subscribe(request.queue, session.listener, request.key)
    return session.start(subscription)
  }

  return { follow }
}

interface Session {
  listener: QueueListener
  start(subscription: EventSubscription): Promise<'following' | 'over'>
}

function createSession(
  request: FollowRequest,
  history: EventHistory,
  toFrame: (event: FollowedEvent) => string,
  maxBytes: number,
): Session {
  const { queue, key, lastEventId } = request
  const state = startCatchingUp(maxBytes)
  const client = createClient(request, toFrame, () => subscription.close())
  let subscription!: EventSubscription

  const listener: QueueListener = {
    onEvent(event) {
      if (receiveEvent(state, event)) client.sendEvent(event)
    },
    onGap(reason) {
      if (receiveGap(state, reason)) catchUp(subscription.position).catch(client.end)
    },
  }

  /** Returns the position of the snapshot. */
  async function sendSnapshot(): Promise<string> {
    const gap = takeGap(state)
    const { data, position, isOver } = await request.snapshot(subscription.position)
    client.open()
    if (gap !== undefined) client.send(frameOfGap(gap))
    client.send(frameOf('snapshot', data, position))
    if (isOver) client.end()
    return position
  }

  /** Makes a client that has every event up to `position` live, with a snapshot for each gap on the way. */
  async function catchUp(position: string): Promise<void> {
    let upTo = position
    while (state.buffered && !client.isClosed()) {
      if (state.gap === undefined) {
        for (const event of goLive(state, upTo)) client.sendEvent(event)
      } else {
        clearBuffer(state)
        upTo = await sendSnapshot()
      }
    }
  }

  /** Sends the events that the client missed after `after`; false if some are no longer available. */
  async function resume(after: string): Promise<boolean> {
    const pages = await history.since(queue, after, subscription.position)
    if (!pages) return false
    for await (const page of pages) {
      if (page === 'gap') return false
      for (const event of page) {
        if (key !== undefined && event.key !== key) continue
        client.open()
        client.sendEvent(event)
        // A client may have missed many events, so they are sent at its pace.
        await client.drained()
      }
      if (client.isClosed()) break
    }
    return true
  }

  /** Brings the client to the returned position; `undefined` if it had seen the end already. */
  async function begin(): Promise<{ position: string; isOver: boolean } | undefined> {
    const { position } = subscription
    if (lastEventId === undefined || !(await resume(lastEventId))) {
      if (lastEventId !== undefined) state.gap = 'expired'
      return { position: await sendSnapshot(), isOver: false }
    }
    const now = key === undefined ? undefined : await request.snapshot(position)
    // No event follows the client's last one and the job is over, so that event was the job's end.
    if (now?.isOver && !client.isOpen() && now.position === position) return undefined
    client.open()
    return { position, isOver: now?.isOver ?? false }
  }

  async function start(opened: EventSubscription): Promise<'following' | 'over'> {
    subscription = opened
    try {
      const begun = await begin()
      if (!begun) {
        subscription.close()
        return 'over'
      }
      await catchUp(begun.position)
      // A client that has not received the final event yet receives it when it reconnects.
      if (begun.isOver) client.end()
    } catch (error) {
      subscription.close()
      if (!client.isOpen()) throw error
      client.end()
    }
    return 'following'
  }

  return { listener, start }
}

/** The response of a session. Until it opens, an error can still be sent instead. */
interface Client {
  /** Does nothing if it is open. */
  open(): void
  isOpen(): boolean
  isClosed(): boolean
  send(frame: string): void
  /** Does nothing unless it is open. Ends the response after the last event of a job that is followed. */
  sendEvent(event: FollowedEvent): void
  drained(): Promise<void> | undefined
  end(): void
}

function createClient(
  request: FollowRequest,
  toFrame: (event: FollowedEvent) => string,
  onClose: () => void,
): Client {
  let sink: FrameSink | undefined
  return {
    open() {
      if (sink) return
      sink = request.open()
      sink.onClose(onClose)
    },
    isOpen: () => sink !== undefined,
    isClosed: () => sink?.isClosed ?? false,
    send: (frame) => sink?.send(frame),
    sendEvent(event) {
      if (!sink || sink.isClosed || !isNamed(event)) return
      sink.send(toFrame(event))
      if (request.key !== undefined && isLastEvent(event)) sink.end()
    },
    drained: () => sink?.drained(),
    end: () => sink?.end(),
  }
}
