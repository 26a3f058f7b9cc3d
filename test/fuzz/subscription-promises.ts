/**
 * What must hold of subscriptions beyond the document: they go nowhere but where they may, are kept as they were put, and
 * what is secret of them is told once or never.
 */
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { Answer, Ask } from './clients.ts'
import { bodyOf, type Case } from './operations.ts'
import type { Check, Promises } from './promises.ts'
import { HIDDEN } from './special.ts'
import { createTurns, type Turn } from './turns.ts'
import { isLoopback } from './urls.ts'

export interface SubscriptionPromises extends Promises {
  /** All that may have one. */
  queues(): string[]
  /** What deliveries of that queue may be signed with. */
  secretsOf(queue: string): string[]
}

interface Wanted {
  url: string
  concurrency?: number
  timeoutMs?: number
  secret?: string
  rateLimit?: object
  headers?: Record<string, string>
  paused?: boolean
}

export interface Shown {
  queue: string
  url: string
  headers: string[]
  secrets: { id: string; expiresAt: string | null }[]
  paused: object | null
  updatedAt: string
  deliveries: { lastError: string | null } | null
  secret?: string
}

const CHANGES = ['putSubscription', 'deleteSubscription', 'rotateSecret']
const QUEUE = /^[A-Za-z0-9_.-]{1,100}$/
const SECRET = /whsec_[A-Za-z0-9+/=]{20,}/
/** Those that say how the body is to be read, or that it is ours. */
const NOT_THEIRS =
  /^(host|content-(length|type)|transfer-encoding|connection|te|upgrade|expect|user-agent|webhook-.*)$/i
/** Longest that an old secret signs beside a new one, s. */
const OVERLAP_S = 86_400

export function createSubscriptionPromises(): SubscriptionPromises {
  const turns = createTurns()
  const turnOf = new WeakMap<Case, Turn>()
  const queues = new Set<string>()
  const secrets = new Map<string, string[]>()

  async function put(asked: Case, answer: Answer, ask: Ask): Promise<string[]> {
    const { status, body } = answer
    if (status === 422) return refusalFaults(asked, body)
    if (status !== 200 && status !== 201) return hiddenFaults(body)
    const wanted = bodyOf(asked) as Wanted
    const { secret, ...shown } = JSON.parse(body) as Shown
    learn(shown.queue, secret ?? wanted.secret)
    return [
      ...hiddenFaults(JSON.stringify(shown)),
      ...placeFaults(wanted.url),
      ...wantedFaults(wanted, shown, queueOf(asked)),
      ...((status === 201 && wanted.secret === undefined) === (secret !== undefined)
        ? []
        : ['the secret is told where it should not be, or is not']),
      ...signFaults(shown, secret ?? wanted.secret),
      ...(await keptFaults(asked, shown, ask)),
    ]
  }

  async function rotated(asked: Case, { status, body, atMs }: Answer, ask: Ask): Promise<string[]> {
    if (status !== 201) return hiddenFaults(body)
    const { overlap = OVERLAP_S } = bodyOf(asked) as { overlap?: number }
    const { secret, ...shown } = JSON.parse(body) as Shown
    const [first, ...others] = shown.secrets
    const endMs = Date.now() + overlap * 1_000
    learn(shown.queue, secret)
    return [
      ...hiddenFaults(JSON.stringify(shown)),
      ...(secret === undefined ? ['the new secret is not told'] : signFaults(shown, secret)),
      ...(first?.expiresAt === null ? [] : ['the new secret ends']),
      ...(others.every(({ expiresAt }) => Date.parse(expiresAt ?? '') <= endMs)
        ? []
        : ['an old secret stays']),
      ...(overlap > 0 || others.length === 0 ? [] : ['an old secret overlaps']),
      ...(others.every(({ expiresAt }) => Date.parse(expiresAt!) >= atMs)
        ? []
        : ['one that has ended is shown']),
      ...(await keptFaults(asked, shown, ask)),
    ]
  }

  function learn(queue: string, secret: string | undefined): void {
    if (secret !== undefined) secrets.set(queue, [...(secrets.get(queue) ?? []), secret])
  }

  /** It is what GET shows, while nobody changes it. A receiver that wants no more pauses it, which is a change. */
  async function keptFaults(asked: Case, shown: Shown, ask: Ask): Promise<string[]> {
    const found = await show(shown.queue, ask)
    if (!turnOf.get(asked)!.isAlone()) return []
    if (!found) return ['what was put is not there']
    if (found.updatedAt !== shown.updatedAt) return found.paused ? [] : ['it was changed by nobody']
    const { deliveries: _, secrets: live, ...rest } = found
    const { deliveries: __, secrets: put, ...wanted } = shown
    return isDeepStrictEqual(rest, wanted) && live[0]?.id === put[0]?.id ? [] : ['it is kept as another']
  }

  const checks: Record<string, Check> = {
    putSubscription: put,
    rotateSecret: rotated,
    getSubscription(asked, { status, body }) {
      const shown = JSON.parse(body) as Shown
      const isIts = status !== 200 || shown.queue === queueOf(asked)
      return [
        ...hiddenFaults(body),
        ...(isIts ? [] : ['it is of another queue']),
        ...(shown.secret === undefined ? [] : ['a secret is shown']),
        // Such a subscription should not have been taken.
        ...(shown.deliveries?.lastError?.includes('cannot be sent') ? ['what was taken cannot be sent'] : []),
      ]
    },
    async deleteSubscription(asked, { status, body }, ask) {
      if (status !== 204) return hiddenFaults(body)
      const found = await show(queueOf(asked)!, ask)
      return found && turnOf.get(asked)!.isAlone() ? ['what was deleted is there still'] : []
    },
  }

  return {
    checks,
    begin(operationId, asked) {
      const queue = queueOf(asked)
      if (queue === undefined || !CHANGES.includes(operationId)) return
      turnOf.set(asked, turns.begin(queue))
      if (operationId === 'putSubscription' && QUEUE.test(queue)) queues.add(queue)
    },
    end: (asked) => turnOf.get(asked)?.end(),
    queues: () => [...queues],
    secretsOf: (queue) => secrets.get(queue) ?? [],
  }
}

export async function show(queue: string, ask: Ask): Promise<Shown | undefined> {
  const { status, body } = await ask({ method: 'GET', url: `/queues/${queue}/subscription`, headers: {} })
  return status === 200 ? (JSON.parse(body) as Shown) : undefined
}

function hiddenFaults(body: string): string[] {
  // Where a body stops being JSON a few characters of it are quoted, to whoever has sent them.
  if (body.includes('"code":"INVALID_JSON"')) return []
  return body.includes(HIDDEN) || SECRET.test(body) ? ['what is secret is shown'] : []
}

/** What was taken is to be sent nowhere but to this machine. */
function placeFaults(text: string): string[] {
  return mayBeCalled(text) ? [] : ['jobs are to be sent where they must not be']
}

function mayBeCalled(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, username, password, hostname, href } = new URL(text)
  const isPlain = `${username}${password}` === '' && !href.includes('#')
  return /^https?:$/.test(protocol) && isPlain && isLoopback(hostname)
}

function refusalFaults(asked: Case, body: string): string[] {
  const { code, errors = [] } = JSON.parse(body) as { code: string; errors?: { pointer: string }[] }
  if (code !== 'INVALID_OPTION') return hiddenFaults(body)
  const [{ pointer } = { pointer: '' }] = errors
  const { url } = bodyOf(asked) as Wanted
  // What else `localhost` is here, the machine knows.
  const isWrong = pointer === '/url' && mayBeCalled(url) && new URL(url).hostname !== 'localhost'
  return [
    ...hiddenFaults(body),
    ...(/^\/(url$|secret$|headers\/)/.test(pointer) ? [] : [`what is at fault is ${pointer}`]),
    ...(isWrong ? ['a URL that may be called is refused'] : []),
  ]
}

function wantedFaults(wanted: Wanted, shown: Shown, queue: string | undefined): string[] {
  const { url, concurrency = 10, timeoutMs = 15_000, rateLimit = null, headers = {}, paused = false } = wanted
  const told = { queue, url, concurrency, timeoutMs, rateLimit, headers: Object.keys(headers) }
  const same = Object.entries(told).every(([name, value]) => isDeepStrictEqual(shown[name as 'url'], value))
  return [
    ...(same ? [] : ['it is shown otherwise than it was put']),
    ...((shown.paused !== null) === paused ? [] : ['it is paused, or is not']),
    ...(shown.headers.some((name) => NOT_THEIRS.test(name)) ? ['a header is not theirs to choose'] : []),
  ]
}

function signFaults({ secrets }: Shown, secret: string | undefined): string[] {
  if (secret === undefined) return secrets.length > 0 ? [] : ['there is no secret']
  const id = createHash('sha256').update(secret).digest('hex').slice(0, 8)
  return secrets[0]?.id === id ? [] : ['it is signed with another secret']
}

function queueOf({ url }: Case): string | undefined {
  try {
    return decodeURIComponent(/^\/queues\/([^/?]+)/.exec(url)?.[1] ?? '')
  } catch {
    return undefined
  }
}
