/**
 * Reads the hash of a job as a take returns it. Anything may have been written to it, so no field may stop the take: a field that
 * decides nothing is replaced by its default, and a job that BullMQ's own worker could not read is malformed.
 */
import { jsonText } from './json-syntax.ts'
import { NO_OPTIONS, readOptions, type StoredOptions } from './stored-options.ts'

export interface TakenJob {
  name: string
  /** JSON text. */
  data: string
  options: StoredOptions
  attemptsMade: number
  attemptsStarted: number
  /** Ms since 1970; 0 if the job does not say. */
  createdAtMs: number
  /** When the job was taken, ms since 1970; 0 if the job does not say. */
  takenAtMs: number
  /** Id of the job's scheduler. */
  schedulerId: string | undefined
  /** The job must fail with this reason instead of being worked. */
  deferredFailure: string | undefined
  /** Why the job cannot be worked. */
  malformed: string | undefined
}

/** Fields of which every job that BullMQ has added has at least one. */
const OWN_FIELDS = ['name', 'data', 'opts', 'timestamp']

/** `list`: names and values in turn. Never throws. */
export function readTakenJob(list: readonly string[]): TakenJob {
  const fields = new Map<string, string>()
  for (let index = 0; index + 1 < list.length; index += 2) fields.set(list[index]!, list[index + 1]!)
  const options = readOptions(fields.get('opts'))
  return {
    name: fields.get('name') ?? '',
    data: jsonText(fields.get('data') || '{}'),
    options: options ?? NO_OPTIONS,
    attemptsMade: countOf(fields.get('atm')),
    attemptsStarted: countOf(fields.get('ats')) || 1,
    createdAtMs: countOf(fields.get('timestamp')),
    takenAtMs: countOf(fields.get('processedOn')),
    schedulerId: fields.get('rjk') || undefined,
    deferredFailure: fields.get('defa') || undefined,
    malformed: whyMalformed(fields, options !== undefined),
  }
}

function whyMalformed(fields: ReadonlyMap<string, string>, hasOptions: boolean): string | undefined {
  if (!OWN_FIELDS.some((name) => fields.has(name)))
    return malformed('it has no fields, so its hash was missing')
  if (!hasOptions) return malformed('field opts is not a JSON object')
  if (!isJson(fields.get('progress') || '0')) return malformed('field progress is not JSON')
  if (!isJson(fields.get('parent') || '{}')) return malformed('field parent is not JSON')
  return undefined
}

const malformed = (why: string) => `Malformed job: ${why}`

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function countOf(text: string | undefined): number {
  const count = Number.parseInt(text ?? '0', 10)
  return count >= 0 && count <= Number.MAX_SAFE_INTEGER ? count : 0
}
