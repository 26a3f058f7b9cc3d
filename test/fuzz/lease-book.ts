/**
 * Keeps the leases that the service has granted, and fills them into requests that contain a placeholder: a lease that is
 * held, settled, tampered with, sealed by another service, or of a job that never existed. What the book knows of a lease
 * determines what the service must respond.
 */
import { createLeaseSealer } from '../../src/leases/lease-token.ts'
import type { Case } from './operations.ts'

/** Placeholders; each is a complete JSON string. */
export const LEASES = {
  held: '@held',
  /** The previous lease of the same request. */
  again: '@again',
  settled: '@settled',
  changed: '@changed',
  foreign: '@foreign',
  gone: '@gone',
} as const

export const SECRET = 'f'.repeat(40)
const OTHER_SECRET = 'o'.repeat(40)

export interface LeasedJob {
  id: string
  name: string
  data: unknown
  attempt: number
  attempts: number
  lease: string
  expiresAt: string
}

export interface Lease {
  /** `undefined` for a lease of a job that never existed. */
  job: LeasedJob | undefined
  /** The lease is certainly held until then, ms since 1970, whether or not a pending extension succeeds. */
  untilMs: number
  /** Requests to settle it that are in flight or completed. */
  settles: number
  /** When the service confirmed that it is settled. */
  settledAtMs: number | undefined
}

export interface LeaseBook {
  /** Fills in the placeholders of the body. `settles`: the leases are no longer held afterwards. */
  fill(testCase: Case, settles: boolean): Case
  /** A lease that this service has granted; `undefined` for any other text. */
  find(text: string): Lease | undefined
  add(job: LeasedJob): Lease
  /** The lease that certainly holds this job. */
  holder(id: string): Lease | undefined
  /** Makes the lease available for requests. */
  offer(lease: Lease): void
  /** Makes the leases available again that this request was given to settle, and has not settled. */
  returnUnused(testCase: Case): void
  /** Makes the lease available as a settled one. */
  retire(lease: Lease): void
}

/** How many settled leases are kept, the latest. */
const KEPT = 200
const PLACEHOLDER = new RegExp(`"(${Object.values(LEASES).join('|')})"`, 'g')

export function createLeaseBook(): LeaseBook {
  const ours = createLeaseSealer([SECRET])
  const others = createLeaseSealer([OTHER_SECRET])
  const known = new Map<string, Lease>()
  const byJob = new Map<string, Lease>()
  const heldTokens: string[] = []
  const settled: string[] = []
  const given = new WeakMap<Case, string[]>()
  let counter = 0

  /** Mostly the newest, which is still held; sometimes the oldest. */
  function takeHeld(): string | undefined {
    return counter++ % 8 === 0 ? heldTokens.shift() : heldTokens.pop()
  }

  const any = (texts: string[]) => texts[counter++ % Math.max(1, texts.length)]

  function gone(): string {
    const key = `gone-${counter++}`
    const lease = { queue: 'fuzz', key, token: 'x', opts: '{}', attemptsMade: 0, attemptsStarted: 1 }
    const text = ours.seal(lease)
    known.set(text, { job: undefined, untilMs: 0, settles: 0, settledAtMs: undefined })
    return text
  }

  return {
    fill(testCase, settles) {
      if (!testCase.payload?.includes('"@')) return testCase
      const taken: string[] = []
      let last: string | undefined
      const one = () => {
        const text = settles ? takeHeld() : any(heldTokens)
        if (settles && text !== undefined) taken.push(text)
        return text
      }
      const fill: Record<string, () => string | undefined> = {
        [LEASES.held]: one,
        [LEASES.again]: () => last ?? one(),
        [LEASES.settled]: () => any(settled),
        [LEASES.changed]: () => change(any([...heldTokens, ...settled]), counter++),
        [LEASES.foreign]: () => reseal(any([...heldTokens, ...settled])),
        [LEASES.gone]: gone,
      }
      const payload = testCase.payload.replaceAll(PLACEHOLDER, (whole, placeholder: string) => {
        const text = fill[placeholder]!()
        if (text === undefined) return whole
        last = text
        return JSON.stringify(text)
      })
      const filled = { ...testCase, payload }
      given.set(filled, taken)
      return filled
    },
    find: (text) => known.get(text),
    add(job) {
      const lease = { job, untilMs: Date.parse(job.expiresAt), settles: 0, settledAtMs: undefined }
      known.set(job.lease, lease)
      byJob.set(job.id, lease)
      return lease
    },
    holder(id) {
      const lease = byJob.get(id)
      return lease && lease.settles === 0 && Date.now() < lease.untilMs ? lease : undefined
    },
    offer({ job }) {
      if (job) heldTokens.push(job.lease)
    },
    returnUnused(testCase) {
      const unused = (given.get(testCase) ?? []).filter((text) => known.get(text)!.settles === 0)
      heldTokens.push(...unused)
      given.delete(testCase)
    },
    retire({ job }) {
      if (job && settled.push(job.lease) > KEPT) settled.shift()
    },
  }

  function reseal(text: string | undefined): string | undefined {
    return text && others.seal(ours.open(text))
  }
}

const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/** Replaces, removes or inserts one character, also at the ends. */
function change(text: string | undefined, counter: number): string | undefined {
  if (text === undefined) return undefined
  const dot = text.indexOf('.')
  const positions = [0, text.length - 1, dot, dot - 1, dot + 1, (counter * 7_919) % text.length]
  const at = positions[counter % positions.length]!
  const next = DIGITS[(DIGITS.indexOf(text[at]!) + 1) % DIGITS.length]!
  const changes = [
    text.slice(0, at) + next + text.slice(at + 1),
    text.slice(0, at) + text.slice(at + 1),
    text.slice(0, at) + next + text.slice(at),
    `${text}${['=', '.', '!', ' ', '.x', 'A', '\n'][counter % 7]}`,
  ]
  return changes[(counter >> 2) % changes.length]
}
