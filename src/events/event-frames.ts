/**
 * Formats BullMQ's events as frames of a `text/event-stream` (WHATWG HTML, §9.2). Every change of state becomes a `state`
 * event; all other events keep BullMQ's names.
 */

import { jobStates } from '../bullmq/job-states.ts'
import { parseJsonText } from '../bullmq/json-text.ts'
import { millisecondsOf } from '../redis/streams/stream-position.ts'
import type { FollowGap } from './follow-state.ts'
import type { QueueEvent } from './queue-events.ts'

const stateNames: readonly string[] = jobStates

/** The state that the job enters, or `undefined`. BullMQ announces a prioritized job as waiting. */
export function stateOf({ event }: QueueEvent): string | undefined {
  return stateNames.includes(event) ? event : undefined
}

/** `data`: JSON text, which is a single line. */
export function frameOf(event: string, data: string, id?: string): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${data}\n\n`
}

export function frameOfEvent(event: QueueEvent): string {
  const name = stateOf(event) === undefined ? event.event : 'state'
  return frameOf(name.replace(/[\r\n]/g, ''), JSON.stringify(dataOf(event)), event.id)
}

/** The frame has no id, so a client that reconnects after it asks again for the events before it. */
export function frameOfGap(reason: FollowGap): string {
  return frameOf('gap', JSON.stringify({ reason }))
}

function dataOf(event: QueueEvent): object {
  const { queue, key, id, fields } = event
  const subject = {
    ...(key === undefined ? {} : { id: `${queue}:${key}` }),
    queue,
    ...timeOf('at', millisecondsOf(id)),
  }
  const state = stateOf(event)
  if (state !== undefined) return { ...subject, state, previous: fields['prev'] ?? null, ...outcomeOf(event) }
  if (event.event === 'progress') return { ...subject, progress: parseJsonText(fields['data']) }
  return { ...subject, ...detailsOf(event) }
}

function outcomeOf({ event, fields }: QueueEvent): object {
  const { returnvalue, failedReason, delay } = fields
  if (event === 'completed') return { result: parseJsonText(returnvalue) ?? null }
  if (event === 'failed') return { error: { message: failedReason ?? '' } }
  if (event === 'delayed') return timeOf('delayedUntil', Number(delay))
  return {}
}

/** A producer may have chosen a time, or the id of an entry, that no Date can hold. */
function timeOf(name: 'at' | 'delayedUntil', ms: number): object {
  const time = new Date(ms)
  return Number.isNaN(time.getTime()) ? {} : { [name]: time.toISOString() }
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
