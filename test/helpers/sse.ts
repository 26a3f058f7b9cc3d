/** Server-sent events as clients receive them: a real EventSource on a real socket. */
import { EventSource } from 'eventsource'
import type { Test } from 'tap'
import { eventually, type TestApp } from './app.ts'

export interface ReceivedEvent {
  event: string
  id: string
  data: Record<string, unknown>
}

export interface Following {
  received: ReceivedEvent[]
  /** Waits for the next event of that name after the one it returned last. */
  next(event: string): Promise<ReceivedEvent>
  /** 0 connecting, 1 open, 2 closed for good: it will not reconnect. */
  state(): number
  /** One entry each time the connection ended or failed: the status of a response that was no stream, or undefined. */
  errors: (number | undefined)[]
  close(): void
}

const EVENTS =
  'snapshot gap state progress added removed deduplicated debounced duplicated drained paused resumed cleaned retries-exhausted stalled'

/** `lastEventId`: sent like a client that reconnects. */
export function follow(t: Test, url: string, lastEventId?: string): Following {
  const source = new EventSource(url, {
    fetch: (input, init) =>
      fetch(input, {
        ...init,
        headers: {
          ...(init.headers as Record<string, string>),
          ...(lastEventId === undefined || 'Last-Event-ID' in (init.headers as object)
            ? {}
            : { 'Last-Event-ID': lastEventId }),
        },
      }),
  })
  const received: ReceivedEvent[] = []
  const errors: (number | undefined)[] = []
  for (const event of EVENTS.split(' ')) {
    source.addEventListener(event, (message) =>
      received.push({ event, id: message.lastEventId, data: JSON.parse(message.data) }),
    )
  }
  source.addEventListener('error', ({ code }) => errors.push(code))
  t.teardown(() => source.close())
  let seen = 0
  return {
    received,
    errors,
    state: () => source.readyState,
    close: () => source.close(),
    async next(event) {
      let index = -1
      await eventually(() => {
        index = received.findIndex((one, i) => i >= seen && one.event === event)
        return index >= 0
      })
      seen = index + 1
      return received[index]!
    },
  }
}

/** Starts to listen on a free port and returns the base URL. */
export async function listen(app: TestApp): Promise<string> {
  return app.http.listen({ host: '127.0.0.1', port: 0 })
}
