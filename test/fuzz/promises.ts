/** What an answer says beyond its shape: that a job was stored as it was sent, and that it is about what was asked for. */
import { isDeepStrictEqual } from 'node:util'
import type { Answer, Ask } from './clients.ts'
import type { Case } from './operations.ts'

interface Job {
  name: string
  data?: unknown
  opts?: { deduplication?: unknown }
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

/** Says what is not as it was promised, and nothing when all is. By operationId; the others promise nothing more. */
export const promises: Record<
  string,
  (asked: Case, answer: Answer, ask: Ask) => Promise<string[]> | string[]
> = {
  async addJob(asked, { status, headers, body }, ask) {
    if (status !== 201) return []
    const { id, name } = JSON.parse(body)
    const faults = await lost(JSON.parse(asked.payload!), id, ask)
    if (name !== wellFormed(JSON.parse(asked.payload!).name)) faults.push('the name is another than was sent')
    const { headers: now } = await ask({ method: 'GET', url: `/jobs/${id}`, headers: {} })
    // One that another job with its deduplication id has replaced has none.
    const isNow = now['etag'] === undefined || now['etag'] === headers['etag']
    return isNow || mayWait(asked) ? faults : [...faults, 'the ETag of the new job is not its ETag']
  },

  async addJobs(asked, { status, body }, ask) {
    if (![201, 207, 422].includes(status)) return []
    const { jobs } = JSON.parse(asked.payload!) as { jobs: Job[] }
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
async function lost(sent: Job, id: string, ask: Ask): Promise<string[]> {
  // Another job with that deduplication id may have taken its place by now.
  if (sent.opts?.deduplication !== undefined) return []
  const found = await ask({ method: 'GET', url: `/jobs/${id}?include=data`, headers: {} })
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
function wellFormed(text: string): string {
  return Buffer.from(text).toString()
}

export function mayWait({ url, headers }: Case): boolean {
  return url.includes('wait=') || headers['prefer'] !== undefined
}
