/** Server-sent events as their users hear them: a real EventSource, on a real socket. */
import { EventSource } from 'eventsource'
import type { Test } from 'tap'
import { eventually, type TestApp } from './app.ts'

export interface Heard {
  event: string
  id: string
  data: Record<string, unknown>
}

export interface Following {
  heard: Heard[]
  /** Waits for the next of that name that has not been waited for yet. */
  next(event: string): Promise<Heard>
  /** 0 connecting, 1 open, 2 closed for good: it will not come back. */
  state(): number
  /** How often the connection ended or failed; with the status of an answer that was no stream. */
  errors: (number | undefined)[]
  close(): void
}

const EVENTS =
  'snapshot gap state progress added removed deduplicated debounced duplicated drained paused resumed cleaned retries-exhausted stalled'

/** `lastEventId`: as a client that comes back sends it. */
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
  const heard: Heard[] = []
  const errors: (number | undefined)[] = []
  for (const event of EVENTS.split(' ')) {
    source.addEventListener(event, (message) =>
      heard.push({ event, id: message.lastEventId, data: JSON.parse(message.data) }),
    )
  }
  source.addEventListener('error', ({ code }) => errors.push(code))
  t.teardown(() => source.close())
  let seen = 0
  return {
    heard,
    errors,
    state: () => source.readyState,
    close: () => source.close(),
    async next(event) {
      let index = -1
      await eventually(() => {
        index = heard.findIndex((one, i) => i >= seen && one.event === event)
        return index >= 0
      })
      seen = index + 1
      return heard[index]!
    },
  }
}

/** Listens, and tells where. */
export async function listen(app: TestApp): Promise<string> {
  return app.http.listen({ host: '127.0.0.1', port: 0 })
}
