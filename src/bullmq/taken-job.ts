/**
 * Reads the hash of a job as a take returns it. Anything may have been written to it, so no field may stop the take: a field that
 * decides nothing is replaced by its default, and a job that BullMQ's own worker could not read is malformed.
 */
import type { StoredJson } from '../json/stored-json.ts'
import { NO_OPTIONS, readOptions, type StoredOptions } from './stored-options.ts'

export interface TakenJob {
  name: string
  /** JSON text in UTF-8. It may be a view of a larger Buffer. */
  data: Buffer
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

/** The fields that are read, by their stored names; `undefined`: the job does not have it. */
interface TakenFields {
  name: Buffer | undefined
  data: Buffer | undefined
  opts: Buffer | undefined
  timestamp: Buffer | undefined
  processedOn: Buffer | undefined
  atm: Buffer | undefined
  ats: Buffer | undefined
  rjk: Buffer | undefined
  defa: Buffer | undefined
  progress: Buffer | undefined
  parent: Buffer | undefined
}

/** `list`: names and values in turn. Never throws. */
export function readTakenJob(list: readonly Buffer[], json: StoredJson): TakenJob {
  const fields = pickFields(list)
  const { name, data, opts, timestamp, processedOn, atm, ats, rjk, defa } = fields
  const options = readOptions(opts?.toString())
  return {
    name: name?.toString() ?? '',
    data: data?.length ? json.asJson(data) : NO_DATA,
    options: options ?? NO_OPTIONS,
    attemptsMade: countOf(atm),
    attemptsStarted: countOf(ats) || 1,
    createdAtMs: countOf(timestamp),
    takenAtMs: countOf(processedOn),
    schedulerId: rjk?.toString() || undefined,
    deferredFailure: defa?.toString() || undefined,
    malformed: whyMalformed(fields, options !== undefined, json),
  }
}

const NO_DATA = Buffer.from('{}')
/** The longest name of a field that is read. */
const NAME_MAX = 'processedOn'.length

function pickFields(list: readonly Buffer[]): TakenFields {
  const fields: TakenFields = {
    name: undefined,
    data: undefined,
    opts: undefined,
    timestamp: undefined,
    processedOn: undefined,
    atm: undefined,
    ats: undefined,
    rjk: undefined,
    defa: undefined,
    progress: undefined,
    parent: undefined,
  }
  for (let at = 0; at + 1 < list.length; at += 2) {
    const bytes = list[at]!
    if (bytes.length > NAME_MAX) continue
    const name = bytes.toString('latin1')
    if (Object.hasOwn(fields, name)) fields[name as keyof TakenFields] = list[at + 1]!
  }
  return fields
}

function whyMalformed(fields: TakenFields, hasOptions: boolean, json: StoredJson): string | undefined {
  const { name, data, opts, timestamp, progress, parent } = fields
  // Every job that BullMQ has added has at least one of them.
  if (!(name ?? data ?? opts ?? timestamp)) return malformed('it has no fields, so its hash was missing')
  if (!hasOptions) return malformed('field opts is not a JSON object')
  if (progress?.length && !json.isJson(progress)) return malformed('field progress is not JSON')
  if (parent?.length && !json.isJson(parent)) return malformed('field parent is not JSON')
  return undefined
}

const malformed = (why: string) => `Malformed job: ${why}`

function countOf(field: Buffer | undefined): number {
  const count = field === undefined ? 0 : Number.parseInt(field.toString('latin1'), 10)
  return count >= 0 && count <= Number.MAX_SAFE_INTEGER ? count : 0
}
