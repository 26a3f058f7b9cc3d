/**
 * Reconstructs a job that finished and was not kept (removeOnComplete) from its last known body and its final event. Values of
 * the job are cut out of the body as text, because parsing them would round their numbers.
 */
import type { QueueEvent } from '../../../events/queue-events.ts'
import { membersOf, rawValue } from '../../../json/body-shape.ts'
import { createJsonScanner, type RawJson, rawBytes } from '../../../json/json-scanner.ts'
import { type JsonPart, toBytes } from '../../../json/json-writer.ts'
import { createStoredJson, STORED_DEPTH_MAX } from '../../../json/stored-json.ts'
import { millisecondsOf } from '../../../redis/streams/stream-position.ts'
import { timeWithin } from '../../../rfc3339.ts'
import { type JobResource, type JsonText, jsonTextOf } from '../job-resource.ts'

const bodyShape = membersOf({
  progress: rawValue,
  result: rawValue,
  error: membersOf({ message: undefined, stacktrace: rawValue }),
  data: rawValue,
})

interface ScannedBody extends Omit<JobResource, 'progress' | 'result' | 'error' | 'data'> {
  progress?: RawJson
  result?: RawJson
  error?: { message: string; stacktrace?: RawJson } | null
  data?: RawJson
}

const { scan } = createJsonScanner({ maxDepth: STORED_DEPTH_MAX + 1, allowsAnyKey: true })
const { jsonWithin } = createStoredJson()

const NO_TRACES: JsonText = { json: '[]' }

/** `finishedAt` is the time of the event, by Redis' clock. A result of more than `maxBytes` is left out. */
export function finishedBy(
  lastBody: JsonPart,
  { id, event, fields }: QueueEvent,
  maxBytes: number,
): JobResource {
  const last = scan(toBytes(lastBody), bodyShape) as ScannedBody
  const { returnvalue = 'null', failedReason = '' } = fields
  const isCompleted = event === 'completed'
  const result = isCompleted ? jsonWithin(Buffer.from(returnvalue), maxBytes) : undefined
  const omitted = (last.omitted ?? []).filter((name) => name !== (isCompleted ? 'result' : 'error'))
  if (isCompleted && result === undefined) omitted.push('result')
  const lastTraces = textOf(last.error?.stacktrace)
  const lastError = last.error && { message: last.error.message, stacktrace: lastTraces }
  return {
    ...last,
    state: isCompleted ? 'completed' : 'failed',
    progress: textOf(last.progress),
    result: isCompleted ? result && jsonTextOf(result) : textOf(last.result),
    error: isCompleted ? lastError : { message: failedReason, stacktrace: lastTraces ?? NO_TRACES },
    finishedAt: timeWithin(millisecondsOf(id)),
    delayedUntil: null,
    attemptsMade: last.attemptsMade === null ? null : last.attemptsMade + 1,
    data: textOf(last.data),
    omitted: omitted.length > 0 ? omitted : undefined,
  }
}

function textOf(raw: RawJson | undefined): JsonText | undefined {
  return raw && jsonTextOf(rawBytes(raw))
}
