/**
 * Formats BullMQ's events as frames of a `text/event-stream` (WHATWG HTML, §9.2). Every change of state becomes a `state`
 * event; all other events keep BullMQ's names. Anything may have been written to the stream: a text in place of JSON
 * becomes a string, a number that is none is left out, and so is a value that is too long, which `omitted` names.
 */

import { jobStates } from '../bullmq/job-states.ts'
import { jsonStringBytes } from '../json/json-string.ts'
import { createStoredJson } from '../json/stored-json.ts'
import { millisecondsOf } from '../redis/streams/stream-position.ts'
import { timeWithin } from '../rfc3339.ts'
import type { FollowGap } from './follow-state.ts'
import type { QueueEvent } from './queue-events.ts'

/** An event as a client receives it. */
export interface FollowedEvent extends QueueEvent {
  /** Names of fields that were too long to be read. */
  tooLong?: string[]
}

const { jsonWithin } = createStoredJson()

const stateNames: readonly string[] = jobStates

/** The state that the job enters, or `undefined`. BullMQ announces a prioritized job as waiting. */
export function stateOf({ event }: QueueEvent): string | undefined {
  return stateNames.includes(event) ? event : undefined
}

const NAME_MAX = 100

/** BullMQ gives every event a short name; an entry without one means nothing to a client. */
export function isNamed({ event }: QueueEvent): boolean {
  return event !== '' && event.length <= NAME_MAX
}

/** `data`: JSON text. */
export function frameOf(event: string, data: string, id?: string): string {
  // Line breaks in JSON text stand between values, where a space means the same.
  const line = /[\r\n]/.test(data) ? data.replace(/[\r\n]/g, ' ') : data
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${line}\n\n`
}

/** `maxBytes`: most bytes of the values of the event together. */
export function frameOfEvent(event: FollowedEvent, maxBytes: number): string {
  const name = stateOf(event) === undefined ? event.event : 'state'
  return frameOf(name.replace(/[\r\n]/g, ''), dataOf(event, maxBytes), event.id)
}

/** The frame has no id, so a client that reconnects after it asks again for the events before it. */
export function frameOfGap(reason: FollowGap): string {
  return frameOf('gap', JSON.stringify({ reason }))
}

/** A JSON object under construction. */
interface Members {
  text: string
  omitted: string[]
  leftBytes: number
}

function dataOf(event: FollowedEvent, maxBytes: number): string {
  const { queue, key, id } = event
  const members: Members = { text: '', omitted: [], leftBytes: maxBytes }
  if (key !== undefined) addText(members, 'id', `${queue}:${key}`)
  add(members, 'queue', JSON.stringify(queue))
  add(members, 'at', JSON.stringify(timeWithin(millisecondsOf(id))))
  const state = stateOf(event)
  if (state !== undefined) addState(members, event, state)
  else if (event.event === 'progress') addJson(members, 'progress', 'data', event)
  else addDetails(members, event)
  if (members.omitted.length > 0) add(members, 'omitted', JSON.stringify(members.omitted))
  return `{${members.text}}`
}

function addState(members: Members, event: FollowedEvent, state: string): void {
  const { prev, failedReason = '', delay } = event.fields
  add(members, 'state', JSON.stringify(state))
  if (prev === undefined) add(members, 'previous', 'null')
  else addText(members, 'previous', prev)
  if (state === 'completed') addJson(members, 'result', 'returnvalue', event)
  if (state === 'failed') addError(members, failedReason, isTooLong(event, 'failedReason'))
  if (state === 'delayed') {
    // A producer may have chosen a time that RFC 3339 cannot express.
    const delayedUntil = timeWithin(Number(delay))
    if (delayedUntil !== null) add(members, 'delayedUntil', JSON.stringify(delayedUntil))
  }
}

function addDetails(members: Members, { queue, fields, tooLong = [] }: FollowedEvent): void {
  const { name, prev, count, attemptsMade, deduplicationId, deduplicatedJobId } = fields
  if (name !== undefined) addText(members, 'name', name)
  else if (tooLong.includes('name')) members.omitted.push('name')
  if (prev !== undefined) addText(members, 'previous', prev)
  addNumber(members, 'count', count)
  addNumber(members, 'attemptsMade', attemptsMade)
  if (deduplicationId !== undefined) addText(members, 'deduplicationId', deduplicationId)
  if (deduplicatedJobId !== undefined) addText(members, 'deduplicatedId', `${queue}:${deduplicatedJobId}`)
}

function add(members: Members, name: string, json: string): void {
  members.text += `${members.text === '' ? '' : ','}"${name}":${json}`
}

function addText(members: Members, name: string, text: string): void {
  const bytes = text.length > members.leftBytes ? Number.POSITIVE_INFINITY : jsonStringBytes(text)
  if (bytes > members.leftBytes) {
    members.omitted.push(name)
    return
  }
  members.leftBytes -= bytes
  add(members, name, JSON.stringify(text))
}

function addJson(members: Members, name: string, field: string, event: FollowedEvent): void {
  const json = isTooLong(event, field)
    ? undefined
    : jsonWithin(Buffer.from(event.fields[field] ?? 'null'), members.leftBytes)
  if (json === undefined) {
    members.omitted.push(name)
    return
  }
  members.leftBytes -= json.length
  add(members, name, json.toString())
}

function addError(members: Members, reason: string, tooLong: boolean): void {
  const isOmitted =
    tooLong || reason.length > members.leftBytes || jsonStringBytes(reason) > members.leftBytes
  if (isOmitted) members.omitted.push('error')
  else add(members, 'error', JSON.stringify({ message: reason }))
}

function addNumber(members: Members, name: string, text: string | undefined): void {
  const value = Number(text)
  if (text !== undefined && text.trim() !== '' && Number.isFinite(value)) add(members, name, `${value}`)
}

function isTooLong({ tooLong }: FollowedEvent, field: string): boolean {
  return tooLong?.includes(field) ?? false
}
