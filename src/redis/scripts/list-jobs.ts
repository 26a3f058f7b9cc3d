/**
 * Reads one page of a queue's jobs, newest first (list-jobs.lua). A page continues from a *bookmark*: values that the
 * script returned about the end of the page before, opaque to everything but these two files.
 */
import type { Redis } from 'ioredis'
import { FIELD_LIMITS, JOB_FIELDS, type JobRecord, type JobReply, toJobRecord } from './job-hash.ts'
import { loadScript, runScriptForBytes } from './run-script.ts'

const listJobsScript = loadScript('list-jobs')

export interface ListJobsRequest {
  /** What every key of the queue starts with: `bull:emails:`. */
  base: string
  /** BullMQ's lists and sorted sets of job ids to read, in this order: `wait`, `delayed`, … */
  collections: readonly string[]
  /** Most jobs in the page, at least 1. */
  limit: number
  /** Most bytes of their fields. The first job is there in any case, without the fields that do not fit. */
  maxBytes: number
  /** Where the page starts within the first collection; its start if missing. */
  bookmark?: Bookmark | undefined
}

export interface ListedPage {
  jobs: { key: string; job: JobRecord }[]
  /** Where the next page starts; `undefined` at the end. */
  next: PageStart | undefined
}

export interface PageStart {
  collection: string
  bookmark: Bookmark
}

export type Bookmark = (string | number)[]

type Reply = [jobs: [key: Buffer, ...job: JobReply][], collection?: Buffer, bookmark?: (Buffer | number)[]]

/** The script keeps this many ids on either side of the end of a page of a list. */
const NEIGHBOURS = 3

/** Sends one command; rejects as Redis does. */
export async function listJobs(client: Redis, request: ListJobsRequest): Promise<ListedPage> {
  const { base, collections, limit, maxBytes, bookmark = [] } = request
  const keys = collections.map((collection) => base + collection)
  const limits = FIELD_LIMITS.slice(0, JOB_FIELDS.length)
  const args = [base, limit, NEIGHBOURS, maxBytes, JOB_FIELDS.length, ...JOB_FIELDS, ...limits, ...bookmark]
  const [replies, collection, end] = (await runScriptForBytes(client, listJobsScript, keys, args)) as Reply
  return {
    jobs: replies.map(([key, state, values, score]) => ({
      key: key.toString(),
      job: toJobRecord(state, values, score),
    })),
    next:
      collection !== undefined && end !== undefined
        ? { collection: collection.toString(), bookmark: end.map(toText) }
        : undefined,
  }
}

function toText(value: Buffer | number): string | number {
  return typeof value === 'number' ? value : value.toString()
}

/** As in list-jobs.lua; all other collections are sorted sets. */
const LISTS = ['wait', 'paused', 'active']
/** A double as Redis prints it. */
const SCORE = /^-?(\d{1,20}(\.\d{1,20})?(e[+-]?\d{1,3})?|inf)$/
/** More ids than Redis keeps in a list, and few enough that sums of them stay exact. */
const LENGTH_MAX = 2 ** 40

/** Whether the script can process these values; its header describes the shapes. */
export function isBookmark(collection: string, values: unknown[]): values is Bookmark {
  if (values.length === 0) return true
  if (!LISTS.includes(collection)) {
    const [id, score, ...rest] = values
    return typeof id === 'string' && typeof score === 'string' && SCORE.test(score) && rest.length === 0
  }
  const [offset, length, span, lastCount, ...ids] = values
  return (
    isBetween(1, length, LENGTH_MAX) &&
    isBetween(0, offset, length - 1) &&
    isBetween(0, span, offset) &&
    isBetween(1, lastCount, NEIGHBOURS) &&
    isBetween(1 + lastCount, ids.length, 1 + lastCount + NEIGHBOURS) &&
    ids.every((id) => typeof id === 'string')
  )
}

function isBetween(min: number, value: unknown, max: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
}
