/** What must hold of jobs beyond the document: one is stored as it was sent, and an answer is about what was asked for. */
import { isDeepStrictEqual } from 'node:util'
import type { Ask } from './clients.ts'
import { bodyOf, mayWait } from './operations.ts'
import type { Check } from './promises.ts'
import { HOOKED } from './special.ts'

interface NewJob {
  queue?: string
  name: string
  data?: unknown
  opts?: { deduplication?: unknown; removeOnComplete?: unknown; removeOnFail?: unknown }
}

/** As GET /jobs/{id} tells it. */
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

export const jobPromises: Record<string, Check> = {
  async addJob(asked, { status, headers, body }, ask) {
    if (status !== 201) return []
    const { id, name, state } = JSON.parse(body)
    const sent = bodyOf(asked) as NewJob
    const faults = await lost(sent, id, ask)
    if (name !== wellFormed(sent.name)) faults.push('the name is another than was sent')
    const found = await ask({ method: 'GET', url: `/jobs/${id}`, headers: {} })
    // One that another job with its deduplication id has replaced is none; one that was taken has another.
    const now = found.status === 200 ? (JSON.parse(found.body) as Job) : undefined
    const isUntouched = now?.state === state && now?.startedAt === null
    const isNow = !isUntouched || found.headers['etag'] === headers['etag']
    return isNow || mayWait(asked) ? faults : [...faults, 'the ETag of the new job is not its ETag']
  },

  async addJobs(asked, { status, body }, ask) {
    if (![201, 207, 422].includes(status)) return []
    const { jobs } = bodyOf(asked) as { jobs: NewJob[] }
    const { created, deduplicated, failed, results } = JSON.parse(body) as BatchResult
    const count = (fits: (result: BatchResult['results'][number]) => boolean) => results.filter(fits).length
    const first = results.find((result) => result.status === 201)
    return [
      ...(results.length === jobs.length ? [] : ['not every job has its result']),
      ...(results.every(({ index }, at) => index === at) ? [] : ['the results are out of order']),
      ...(created === count((result) => result.status === 201) ? [] : ['created is miscounted']),
      ...(deduplicated === count((result) => result.status === 200) ? [] : ['deduplicated is miscounted']),
      ...(failed === count((result) => result.status >= 400) ? [] : ['failed is miscounted']),
      ...(results.every(pointsAtItself) ? [] : ['a pointer leads to another job']),
      ...(status === (failed === 0 ? 201 : failed === jobs.length ? 422 : 207)
        ? []
        : [`${failed} failed: ${status}`]),
      ...(first ? await lost(jobs[first.index]!, first.id!, ask) : []),
    ]
  },

  getJob({ url }, { status, body }) {
    if (status !== 200) return []
    const [, asked = ''] = /^\/jobs\/([^?]*)/.exec(url) ?? []
    return JSON.parse(body).id === wholeId(decodeURIComponent(asked)) ? [] : ['it is another job']
  },

  listJobs({ url }, { status, body }) {
    // A value that is badly encoded is taken as it stands, commas and all.
    if (status !== 200 || !isDecodable(url)) return []
    const { searchParams } = new URL(url, 'http://x')
    const { jobs } = JSON.parse(body) as { jobs: ({ id: string; queue: string; state: string } | null)[] }
    const [ids, queue, state] = ['ids', 'queue', 'state'].map((name) => searchParams.get(name))
    if (ids) {
      const wanted = ids.split(',').map(wholeId)
      const isEach = jobs.length === wanted.length && jobs.every((job, at) => !job || job.id === wanted[at])
      return isEach ? [] : ['the jobs are not those that were asked for, in their order']
    }
    return [
      ...(jobs.length <= Number(searchParams.get('limit') ?? 50) ? [] : ['the page is too long']),
      ...(jobs.every((job) => job?.queue === (queue ?? 'default')) ? [] : ['a job is of another queue']),
      ...(jobs.every((job) => !state || job?.state === state) ? [] : ['a job is in another state']),
    ]
  },
}

/** What was acknowledged and is not there, or not as it was sent. */
async function lost(sent: NewJob, id: string, ask: Ask): Promise<string[]> {
  // Another job with that deduplication id may have taken its place by now.
  if (sent.opts?.deduplication !== undefined) return []
  const found = await ask({ method: 'GET', url: `/jobs/${id}?include=data`, headers: {} })
  if (found.status === 404 && mayBeOver(sent)) return []
  if (found.status !== 200) return [`the job that was stored is ${found.status}`]
  const { name, data } = JSON.parse(found.body)
  // What JSON.stringify makes of it is what BullMQ stores: 1e400 is null, -0 is 0.
  const wanted = JSON.parse(JSON.stringify(sent.data === undefined ? {} : sent.data))
  return [
    ...(isDeepStrictEqual(data, wanted) ? [] : ['the data that was stored is other than was sent']),
    ...(name === wellFormed(sent.name) ? [] : ['the name that was stored is other than was sent']),
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

/** Half a pair is no character of UTF-8. */
export function wellFormed(text: string): string {
  return Buffer.from(text).toString()
}

/** It may be worked off by now, and not have been kept. */
function mayBeOver({ queue = '', opts = {} }: NewJob): boolean {
  return HOOKED.includes(queue) || opts.removeOnComplete !== undefined || opts.removeOnFail !== undefined
}

/** Read through; `undefined`: there is none. */
export async function readJob(id: string, ask: Ask, include = 'data'): Promise<Job | undefined> {
  const headers = { 'cache-control': 'no-cache' }
  const url = `/jobs/${encodeURIComponent(id)}?include=${include}`
  const { status, body } = await ask({ method: 'GET', url, headers })
  return status === 200 ? (JSON.parse(body) as Job) : undefined
}
