/**
 * Gets several jobs at once: cached ones from memory, the others in one write to Redis. The response is bounded in bytes:
 * a job that no longer fits is there in its brief form, and so is a job that is asked for again.
 *
 *   cached ─ all ────────────────────────────────────────────────────────────────────────→ response
 *          └ otherwise: small reads ─ no more than SMALL_BYTES in all ──────────────────→ response
 *                                   └ otherwise: hold MAX_ANSWER_BYTES, read the others → response
 */
import { hash } from 'node:crypto'
import {
  bytesOfPart,
  createJsonWriter,
  type JsonPart,
  writePart,
  writtenJson,
} from '../../json/json-writer.ts'
import { PACED_BYTES, type PacedTurns } from '../../paced-turns.ts'
import type { ByteBudget } from '../../redis/gateway/byte-budget.ts'
import type { JobRef } from '../job-id.ts'
import { briefJob, type CachedJob, type Found } from './cache-entry.ts'
import type { Allowance, Include } from './job-reader.ts'
import type { StatusCache } from './status-cache.ts'

export interface ManyJobs {
  /** JSON text of the jobs in the order of the ids; `null` for a job that does not exist. */
  body: JsonPart
  /** Strong: it changes when any of the jobs changes. */
  etag: string
  /** Of every valid id. */
  found: Found[]
}

/**
 * `undefined` in `refs` stands for an id that cannot exist. `bypass`: read from Redis even if cached. Rejects with a
 * SluiceError when Redis fails for a job that is not cached, or when too many large reads wait (OVERLOADED).
 */
export type GetMany = (refs: (JobRef | undefined)[], include: Include, bypass: boolean) => Promise<ManyJobs>

/** Most bytes that a request keeps without holding them in the byte budget. */
const SMALL_BYTES = 262_144

interface WantedJob {
  ref: JobRef
  /** `undefined`: it has still to be read. */
  found: Found | undefined
}

export function createGetMany(
  statusCache: StatusCache,
  byteBudget: ByteBudget,
  turns: Pick<PacedTurns, 'take'>,
): GetMany {
  const maxBytes = statusCache.maxAnswerBytes

  return async function getMany(refs, include, bypass) {
    // One time for all jobs, so that those which were read together also expire together.
    const nowMs = performance.now()
    const peek = (ref: JobRef) => (bypass ? undefined : statusCache.peek(idOf(ref), include, nowMs))
    /** Each job once, in the order of the ids. */
    const jobs = new Map<string, WantedJob>()
    for (const ref of refs) {
      if (ref && !jobs.has(idOf(ref))) jobs.set(idOf(ref), { ref, found: peek(ref) })
    }
    const join = async () => {
      const found = refs.map((ref) => ref && jobs.get(idOf(ref))!.found!)
      if (bytesOf(jobs) >= PACED_BYTES) await turns.take()
      return joinJobs(found, maxBytes)
    }
    if (unreadOf(jobs).length === 0) return join()
    const keptBytes = await readSmall([...jobs.values()], include, bypass)
    if (unreadOf(jobs).length === 0) return join()
    return byteBudget.hold(maxBytes, async () => {
      await readRest(unreadOf(jobs), include, bypass, { leftBytes: maxBytes - keptBytes })
      return join()
    })
  }

  /**
   * Reads the jobs that are not found. Forgets what would make it keep more than SMALL_BYTES; cached jobs count too,
   * because the cache may drop them meanwhile. Returns the bytes kept.
   */
  async function readSmall(jobs: WantedJob[], include: Include, bypass: boolean): Promise<number> {
    let keptBytes = 0
    const keep = (job: WantedJob, found: Found | undefined) => {
      const bytes = found?.job?.bytes ?? 0
      const isKept = keptBytes + bytes <= SMALL_BYTES
      if (isKept) keptBytes += bytes
      job.found = isKept ? found : undefined
    }
    const missing = jobs.filter(({ found }) => !found)
    for (const job of jobs) if (job.found) keep(job, job.found)
    const read = async (job: WantedJob) =>
      keep(job, await statusCache.fetchSmall(job.ref, include, { bypass }))
    await Promise.all(missing.map(read))
    return keptBytes
  }

  /** One queue after the other, so that the request holds no more than its allowance. */
  async function readRest(
    jobs: WantedJob[],
    include: Include,
    bypass: boolean,
    allowance: Allowance,
  ): Promise<void> {
    for (const queue of new Set(jobs.map(({ ref }) => ref.queue))) {
      const ofQueue = jobs.filter(({ ref }) => ref.queue === queue)
      if (!bypass) for (const job of ofQueue) job.found = peekWithin(job.ref, include, allowance)
      const unread = ofQueue.filter(({ found }) => !found)
      if (unread.length === 0) continue
      const refs = unread.map(({ ref }) => ref)
      const found = await statusCache.fetchMany(queue, refs, include, { allowance, bypass })
      for (const [index, job] of unread.entries()) job.found = found[index]
    }
  }

  function peekWithin(ref: JobRef, include: Include, allowance: Allowance): Found | undefined {
    const found = statusCache.peek(idOf(ref), include, performance.now())
    if (!found?.job) return found
    const job = found.job.bytes <= allowance.leftBytes ? found.job : briefJob(found.job)
    allowance.leftBytes -= job.bytes
    return { ...found, job }
  }
}

/** Jobs are given whole as long as `maxBytes` suffice, and once; then in their brief form. */
export function joinJobs(all: (Found | undefined)[], maxBytes: number): ManyJobs {
  const joined = createJsonWriter('{"jobs":[')
  const tags: string[] = []
  const given = new Set<CachedJob>()
  let leftBytes = maxBytes
  for (const [index, found] of all.entries()) {
    const job = found?.job
    if (index > 0) joined.text += ','
    if (!job) {
      joined.text += 'null'
      tags.push('-')
      continue
    }
    const isWhole = job.brief === undefined || (job.bytes <= leftBytes && !given.has(job))
    if (job.brief !== undefined) given.add(job)
    const { body, etag } = isWhole ? job : job.brief!
    leftBytes -= isWhole ? job.bytes : bytesOfPart(body)
    writePart(joined, body)
    tags.push(etag)
  }
  joined.text += ']}'
  return {
    body: writtenJson(joined),
    etag: `"${hash('sha1', tags.join(), 'base64url')}"`,
    found: all.filter((one) => one !== undefined),
  }
}

function bytesOf(jobs: Map<string, WantedJob>): number {
  let bytes = 0
  for (const { found } of jobs.values()) bytes += found?.job?.bytes ?? 0
  return bytes
}

function unreadOf(jobs: Map<string, WantedJob>): WantedJob[] {
  return [...jobs.values()].filter(({ found }) => !found)
}

function idOf({ queue, key }: JobRef): string {
  return `${queue}:${key}`
}
