/**
 * Reads that are under way, by what they read. Those who ask for the same at the same time share one (single flight),
 * as long as nothing has happened since it began. Of one id several may be under way, when something has: each hears
 * all that happens until it lands, so that what it brings is never taken for newer than it is.
 */
import { isAfter, STREAM_START } from '../../redis/streams/stream-position.ts'

export interface Flight<Value> {
  promise: Promise<Value>
  /** Whether what was read at `place` in the event stream tells all that has been heard of the job by now. */
  isUpToDate(place: string): boolean
}

export interface SingleFlight<Value> {
  /** The one that may answer whoever asks now. */
  joinable(id: string): Flight<Value> | undefined
  /** Begins a read; `land` is called with what it brings. */
  begin<Read>(
    id: string,
    read: () => Promise<Read>,
    land: (brought: Read, flight: Flight<Value>) => Value,
  ): Flight<Value>
  /** An event, by its place, has spoken of it. */
  overtake(id: string, place: string): void
  /** It was written here: nothing read before now may be kept. */
  cancel(id: string): void
}

interface OwnFlight<Value> extends Flight<Value> {
  isJoinable: boolean
  isCancelled: boolean
  newestEvent: string
}

export function createSingleFlight<Value>(): SingleFlight<Value> {
  /** The newest last. */
  const underWay = new Map<string, OwnFlight<Value>[]>()

  function end(id: string, flight: OwnFlight<Value>): void {
    const rest = underWay.get(id)!.filter((other) => other !== flight)
    if (rest.length > 0) underWay.set(id, rest)
    else underWay.delete(id)
  }

  return {
    joinable(id) {
      const newest = underWay.get(id)?.at(-1)
      return newest?.isJoinable ? newest : undefined
    },
    begin(id, read, land) {
      const flight: OwnFlight<Value> = {
        isJoinable: true,
        isCancelled: false,
        newestEvent: STREAM_START,
        isUpToDate: (place) => !flight.isCancelled && !isAfter(flight.newestEvent, place),
        promise: read()
          .then((brought) => land(brought, flight))
          .finally(() => end(id, flight)),
      }
      const others = underWay.get(id)
      if (others) others.push(flight)
      else underWay.set(id, [flight])
      return flight
    },
    overtake(id, place) {
      for (const flight of underWay.get(id) ?? []) {
        flight.isJoinable = false
        flight.newestEvent = place
      }
    },
    cancel(id) {
      for (const flight of underWay.get(id) ?? []) {
        flight.isJoinable = false
        flight.isCancelled = true
      }
    },
  }
}
