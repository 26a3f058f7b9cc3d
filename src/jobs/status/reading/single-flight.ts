/**
 * Single flight: requests for an id that miss at the same time share one read, as long as no event or write concerned
 * the id since the read began. After one, a new read begins beside the old, so several reads of one id may be under way;
 * each keeps track of the events that *overtake* it, so that its result is never taken for newer than it is.
 */
import { isAfter, STREAM_START } from '../../../redis/streams/stream-position.ts'

export interface Flight<Value> {
  promise: Promise<Value>
  /** Whether a read that was made at `position` in the event stream reflects every event received since it began. */
  isUpToDate(position: string): boolean
}

export interface SingleFlight<Value> {
  /** The read under way that a request may share now. */
  joinable(id: string): Flight<Value> | undefined
  /** Begins a read. `complete` turns its result into the value. */
  begin<Result>(
    id: string,
    read: () => Promise<Result>,
    complete: (result: Result, flight: Flight<Value>) => Value,
  ): Flight<Value>
  /** An event at `position` concerns the id. */
  overtake(id: string, position: string): void
  /** This process wrote the job: no read that is under way may be kept. */
  cancel(id: string): void
}

interface TrackedFlight<Value> extends Flight<Value> {
  isJoinable: boolean
  isCancelled: boolean
  newestEvent: string
}

export function createSingleFlight<Value>(): SingleFlight<Value> {
  /** By id, the newest last. */
  const underWay = new Map<string, TrackedFlight<Value>[]>()

  function end(id: string, flight: TrackedFlight<Value>): void {
    const rest = underWay.get(id)!.filter((other) => other !== flight)
    if (rest.length > 0) underWay.set(id, rest)
    else underWay.delete(id)
  }

  return {
    joinable(id) {
      const newest = underWay.get(id)?.at(-1)
      return newest?.isJoinable ? newest : undefined
    },
    begin(id, read, complete) {
      const flight: TrackedFlight<Value> = {
        isJoinable: true,
        isCancelled: false,
        newestEvent: STREAM_START,
        isUpToDate: (position) => !flight.isCancelled && !isAfter(flight.newestEvent, position),
        promise: read()
          .then((result) => complete(result, flight))
          .finally(() => end(id, flight)),
      }
      const others = underWay.get(id)
      if (others) others.push(flight)
      else underWay.set(id, [flight])
      return flight
    },
    overtake(id, position) {
      for (const flight of underWay.get(id) ?? []) {
        flight.isJoinable = false
        flight.newestEvent = position
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
