/**
 * What clients see of BullMQ's events: frames of a `text/event-stream` (WHATWG HTML, §9.2). A change of state is `state`,
 * whatever BullMQ calls it; `progress` is what a worker said; the rest keeps BullMQ's name.
 */

import { jobStates } from '../bullmq/job-states.ts'
import { millisecondsOf } from '../redis/streams/stream-position.ts'
import type { GapReason, QueueEvent } from './queue-events.ts'

const stateNames: readonly string[] = jobStates

/** The state that an event tells of; a prioritized job is announced as waiting. */
export function stateOf({ event }: QueueEvent): string | undefined {
  return stateNames.includes(event) ? event : undefined
}

/** `data` is JSON text, so that it is one line. */
export function frameOf(event: string, data: string, id?: string): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${data}\n\n`
}

export function frameOfEvent(event: QueueEvent): string {
  const name = stateOf(event) === undefined ? event.event : 'state'
  return frameOf(name.replace(/[\r\n]/g, ''), JSON.stringify(dataOf(event)), event.id)
}

/** What was missed is not known; a snapshot follows. */
export function frameOfGap(reason: GapReason | 'expired'): string {
  return frameOf('gap', JSON.stringify({ reason }))
}

function dataOf(event: QueueEvent): object {
  const { queue, key, id, fields } = event
  const about = {
    ...(key === undefined ? {} : { id: `${queue}:${key}` }),
    queue,
    at: new Date(millisecondsOf(id)).toISOString(),
  }
  const state = stateOf(event)
  if (state !== undefined) return { ...about, state, previous: fields['prev'] ?? null, ...outcomeOf(event) }
  if (event.event === 'progress') return { ...about, progress: parse(fields['data']) }
  return { ...about, ...detailsOf(event) }
}

function outcomeOf({ event, fields }: QueueEvent): object {
  const { returnvalue, failedReason, delay } = fields
  if (event === 'completed') return { result: parse(returnvalue) ?? null }
  if (event === 'failed') return { error: { message: failedReason ?? '' } }
  if (event === 'delayed') return delayedUntil(Number(delay))
  return {}
}

/** A producer may have asked for a time that no date can tell. */
function delayedUntil(ms: number): object {
  const until = new Date(ms)
  return Number.isNaN(until.getTime()) ? {} : { delayedUntil: until.toISOString() }
}

function detailsOf({ queue, fields }: QueueEvent): object {
  const { name, prev, count, attemptsMade, deduplicationId, deduplicatedJobId } = fields
  return {
    ...(name === undefined ? {} : { name }),
    ...(prev === undefined ? {} : { previous: prev }),
    ...(count === undefined ? {} : { count: Number(count) }),
    ...(attemptsMade === undefined ? {} : { attemptsMade: Number(attemptsMade) }),
    ...(deduplicationId === undefined ? {} : { deduplicationId }),
    ...(deduplicatedJobId === undefined ? {} : { deduplicatedId: `${queue}:${deduplicatedJobId}` }),
  }
}

/** BullMQ writes JSON; a text that something else put there is shown as it is. */
function parse(text: string | undefined): unknown {
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
