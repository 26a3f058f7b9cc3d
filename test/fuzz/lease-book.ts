/**
 * The leases that the service has given, for requests that ask for one with a placeholder: held still, settled already,
 * changed, of another service, of a job that never was. What is known of each says what the service must answer.
 */
import { createLeaseSealer } from '../../src/leases/lease-token.ts'
import type { Case } from './operations.ts'

/** Placeholders, each the whole of a text. */
export const LEASES = {
  held: '@held',
  /** The one before it in the same request. */
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
  /** Without what it was made for when it is of no job. */
  job: LeasedJob | undefined
  /** It is held until then for certain, ms since 1970: at least this long, whatever an extension may have made of it. */
  untilMs: number
  /** Requests to settle it that are under way or had an answer for it. */
  settles: number
  /** When the service said that it is settled. */
  settledAtMs: number | undefined
}

export interface LeaseBook {
  /** With the placeholders in its body filled in. `settles`: what it asks for is held no more afterwards. */
  fill(asked: Case, settles: boolean): Case
  /** One of those that this service has made; `undefined` for any other text. */
  find(text: string): Lease | undefined
  /** From now on it is known. */
  enter(job: LeasedJob): Lease
  /** Who holds this job for certain. */
  holder(id: string): Lease | undefined
  /** Requests may have it. */
  offer(lease: Lease): void
  /** Others may have again what this request was given to settle, and has not. */
  takeBack(asked: Case): void
  /** Requests may have it as one that is settled. */
  retire(lease: Lease): void
}

/** Of those that are settled the latest. */
const KEPT = 200
const PLACEHOLDER = new RegExp(`"(${Object.values(LEASES).join('|')})"`, 'g')

export function createLeaseBook(): LeaseBook {
  const ours = createLeaseSealer([SECRET])
  const others = createLeaseSealer([OTHER_SECRET])
  const known = new Map<string, Lease>()
  const byJob = new Map<string, Lease>()
  const held: string[] = []
  const settled: string[] = []
  const given = new WeakMap<Case, string[]>()
  let turn = 0

  /** Mostly a new one, which is held still; now and then the oldest. */
  function takeHeld(): string | undefined {
    return turn++ % 8 === 0 ? held.shift() : held.pop()
  }

  const any = (texts: string[]) => texts[turn++ % Math.max(1, texts.length)]

  function gone(): string {
    const key = `gone-${turn++}`
    const held = { queue: 'fuzz', key, token: 'x', opts: '{}', attemptsMade: 0, attemptsStarted: 1 }
    const text = ours.seal(held)
    known.set(text, { job: undefined, untilMs: 0, settles: 0, settledAtMs: undefined })
    return text
  }

  return {
    fill(asked, settles) {
      if (!asked.payload?.includes('"@')) return asked
      const taken: string[] = []
      let last: string | undefined
      const one = () => {
        const text = settles ? takeHeld() : any(held)
        if (settles && text !== undefined) taken.push(text)
        return text
      }
      const fill: Record<string, () => string | undefined> = {
        [LEASES.held]: one,
        [LEASES.again]: () => last ?? one(),
        [LEASES.settled]: () => any(settled),
        [LEASES.changed]: () => change(any([...held, ...settled]), turn++),
        [LEASES.foreign]: () => reseal(any([...held, ...settled])),
        [LEASES.gone]: gone,
      }
      const payload = asked.payload.replaceAll(PLACEHOLDER, (whole, placeholder: string) => {
        const text = fill[placeholder]!()
        if (text === undefined) return whole
        last = text
        return JSON.stringify(text)
      })
      const filled = { ...asked, payload }
      given.set(filled, taken)
      return filled
    },
    find: (text) => known.get(text),
    enter(job) {
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
      if (job) held.push(job.lease)
    },
    takeBack(asked) {
      const unused = (given.get(asked) ?? []).filter((text) => known.get(text)!.settles === 0)
      held.push(...unused)
      given.delete(asked)
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

/** One character of it is another, is missing, or is there beside the others: at its ends as well. */
function change(text: string | undefined, turn: number): string | undefined {
  if (text === undefined) return undefined
  const dot = text.indexOf('.')
  const places = [0, text.length - 1, dot, dot - 1, dot + 1, (turn * 7_919) % text.length]
  const at = places[turn % places.length]!
  const next = DIGITS[(DIGITS.indexOf(text[at]!) + 1) % DIGITS.length]!
  const changes = [
    text.slice(0, at) + next + text.slice(at + 1),
    text.slice(0, at) + text.slice(at + 1),
    text.slice(0, at) + next + text.slice(at),
    `${text}${['=', '.', '!', ' ', '.x', 'A', '\n'][turn % 7]}`,
  ]
  return changes[(turn >> 2) % changes.length]
}
