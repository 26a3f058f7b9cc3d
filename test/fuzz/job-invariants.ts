/** Invariants of jobs beyond the document: a job is stored as it was sent, and a response is about the requested job. */

import { batchShape, newJobShape } from '../../src/jobs/enqueue/schemas.ts'
import { type BodyShape, membersOf, rawValue } from '../../src/json/body-shape.ts'
import { createJsonTexts } from '../../src/json/canonical-text.ts'
import { createJsonScanner, type RawJson } from '../../src/json/json-scanner.ts'
import type { Send } from './clients.ts'
import type { Check } from './invariants.ts'
import { bodyOf, type Case, mayWait } from './operations.ts'
import { SUBSCRIBED } from './special-values.ts'

interface NewJob {
  queue?: string
  name: string
  data?: unknown
  opts?: { deduplication?: unknown; removeOnComplete?: unknown; removeOnFail?: unknown }
}

/** The response of GET /jobs/{id}. */
export interface Job {
  id: string
  name: string
  state: string
  data?: unknown
  progress: unknown
  result: unknown
  error: { message: string } | null
  attempts: number
  attemptsMade: number
  startedAt: string | null
  delayedUntil: string | null
  deduplicationId: string | null
  logs?: string[]
}

interface BatchResult {
  created: number
  deduplicated: number
  failed: number
  results: {
    index: number
    status: number
    id?: string
    deduplicated?: boolean
    error?: { errors?: { pointer: string }[] }
  }[]
}

export const jobInvariants: Record<string, Check> = {
  async addJob(testCase, { status, headers, body }, send) {
    if (status !== 201) return []
    const { id, name, state } = JSON.parse(body)
    const sent = bodyOf(testCase) as NewJob
    const faults = await lost(sent, rawBodyOf(testCase, newJobShape) as RawData, id, send)
    if (name !== wellFormed(sent.name)) faults.push('the name differs from the one sent')
    const found = await send({ method: 'GET', url: `/jobs/${encodeURIComponent(id)}`, headers: {} })
    // A job may be replaced by another one with its deduplication id, and a job that was taken has another ETag.
    const now = found.status === 200 ? (JSON.parse(found.body) as Job) : undefined
    const isUntouched = now?.state === state && now?.startedAt === null
    const isNow = !isUntouched || found.headers['etag'] === headers['etag']
    return isNow || mayWait(testCase)
      ? faults
      : [...faults, 'the ETag of the response is not that of the new job']
  },

  async addJobs(testCase, { status, body }, send) {
    if (![201, 207, 422].includes(status)) return []
    const { jobs } = bodyOf(testCase) as { jobs: NewJob[] }
    const { jobs: rawJobs } = rawBodyOf(testCase, batchShape(Number.POSITIVE_INFINITY)) as { jobs: RawData[] }
    const { created, deduplicated, failed, results } = JSON.parse(body) as BatchResult
    const count = (fits: (result: BatchResult['results'][number]) => boolean) => results.filter(fits).length
    const first = results.find((result) => result.status === 201)
    return [
      ...(results.length === jobs.length ? [] : ['not every job has its result']),
      ...(results.every(({ index }, at) => index === at) ? [] : ['the results are out of order']),
      ...(created === count((result) => result.status === 201) ? [] : ['created is miscounted']),
      ...(deduplicated === count((result) => result.status === 200) ? [] : ['deduplicated is miscounted']),
      ...(failed === count((result) => result.status >= 400) ? [] : ['failed is miscounted']),
      ...(results.every(pointsAtItself) ? [] : ['a pointer points at another job']),
      ...(status === (failed === 0 ? 201 : failed === jobs.length ? 422 : 207)
        ? []
        : [`${failed} failed: ${status}`]),
      ...(first ? await lost(jobs[first.index]!, rawJobs[first.index]!, first.id!, send) : []),
    ]
  },

  getJob({ url }, { status, body }) {
    if (status !== 200) return []
    const [, requested = ''] = /^\/jobs\/([^?]*)/.exec(url) ?? []
    return JSON.parse(body).id === wholeId(decodeURIComponent(requested))
      ? []
      : ['the response is about another job']
  },

  listJobs({ url }, { status, body }) {
    // A value with invalid encoding is used undecoded, commas included.
    if (status !== 200 || !isDecodable(url)) return []
    const { searchParams } = new URL(url, 'http://x')
    const each = searchParams.getAll('id')
    const { jobs } = JSON.parse(body) as { jobs: ({ id: string; queue: string; state: string } | null)[] }
    const [ids, queue, state] = ['ids', 'queue', 'state'].map((name) => searchParams.get(name))
    if (ids || each.length > 0) {
      const wanted = [...(ids?.split(',') ?? []), ...each].map(wholeId)
      const isEach = jobs.length === wanted.length && jobs.every((job, at) => !job || job.id === wanted[at])
      return isEach ? [] : ['the jobs are not the requested ones, in order']
    }
    return [
      ...(jobs.length <= Number(searchParams.get('limit') ?? 50) ? [] : ['the page is too long']),
      ...(jobs.every((job) => job?.queue === (queue ?? 'default')) ? [] : ['a job is of another queue']),
      ...(jobs.every((job) => !state || job?.state === state) ? [] : ['a job is in another state']),
    ]
  },
}

interface RawData {
  data?: RawJson
}

const scanner = createJsonScanner({ maxDepth: 100 })
const texts = createJsonTexts()

const textOf = (data: RawJson | undefined) => (data ? texts.compact(data).toString() : '{}')

/** Its data as the text that was sent. */
function rawBodyOf({ payload = '' }: Case, shape: BodyShape): unknown {
  return scanner.scan(Buffer.from(payload), shape)
}

/** Violations by a job that was acknowledged, but is missing or differs from what was sent. */
async function lost(sent: NewJob, raw: RawData, id: string, send: Send): Promise<string[]> {
  // Another job with this deduplication id may have replaced it.
  if (sent.opts?.deduplication !== undefined) return []
  const found = await send({
    method: 'GET',
    url: `/jobs/${encodeURIComponent(id)}?include=data`,
    headers: {},
  })
  if (found.status === 404 && mayBeRemoved(sent)) return []
  if (found.status !== 200) return [`GET of the stored job returns ${found.status}`]
  const { name } = JSON.parse(found.body)
  const { data } = scanner.scan(Buffer.from(found.body), membersOf({ data: rawValue })) as RawData
  return [
    ...(textOf(data) === textOf(raw.data) ? [] : ['the stored data differ from the data sent']),
    ...(name === wellFormed(sent.name) ? [] : ['the stored name differs from the name sent']),
  ]
}

function pointsAtItself({ index, error }: BatchResult['results'][number]): boolean {
  const begin = `/jobs/${index}`
  return (error?.errors ?? []).every(({ pointer }) => pointer === begin || pointer.startsWith(`${begin}/`))
}

function isDecodable(url: string): boolean {
  try {
    decodeURIComponent(url.replaceAll('+', ' '))
    return true
  } catch {
    return false
  }
}

function wholeId(id: string): string {
  return id.includes(':') ? id : `default:${id}`
}

/** Replaces lone surrogates, which UTF-8 cannot encode. */
export function wellFormed(text: string): string {
  return Buffer.from(text).toString()
}

/** Whether the job may be finished and removed by now. */
function mayBeRemoved({ queue = '', opts = {} }: NewJob): boolean {
  return SUBSCRIBED.includes(queue) || opts.removeOnComplete !== undefined || opts.removeOnFail !== undefined
}

/** Reads from Redis; `undefined` if the job does not exist. */
export async function readJob(id: string, send: Send, include = 'data'): Promise<Job | undefined> {
  const headers = { 'cache-control': 'no-cache' }
  const url = `/jobs/${encodeURIComponent(id)}?include=${include}`
  const { status, body } = await send({ method: 'GET', url, headers })
  return status === 200 ? (JSON.parse(body) as Job) : undefined
}
