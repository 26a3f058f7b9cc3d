/**
 * Invariants of subscriptions beyond the document: their URLs are allowed, they are stored as they were put, and their
 * secrets are returned once or never.
 */
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { isQueueName, queueOfSegment } from '../../src/queues/queue-name.ts'
import type { HttpResponse, Send } from './clients.ts'
import type { Check, Invariants } from './invariants.ts'
import { bodyOf, type Case } from './operations.ts'
import { createOverlapTracker, type Span } from './overlaps.ts'
import { HIDDEN } from './special-values.ts'
import { isLoopback } from './urls.ts'

export interface SubscriptionInvariants extends Invariants {
  /** All queues that may have a subscription. */
  queues(): string[]
  /** The secrets that deliveries of this queue may be signed with. */
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
const SECRET = /whsec_[A-Za-z0-9+/=]{20,}/
/** Headers that describe the body or identify the service, which a subscription may not set. */
const RESERVED_HEADERS =
  /^(host|content-(length|type)|transfer-encoding|connection|te|upgrade|expect|user-agent|webhook-.*)$/i
/** How long an old secret signs beside a new one by default, s. */
const OVERLAP_S = 86_400

export function createSubscriptionInvariants(): SubscriptionInvariants {
  const overlaps = createOverlapTracker()
  const spanOf = new WeakMap<Case, Span>()
  const queues = new Set<string>()
  const secrets = new Map<string, string[]>()

  async function put(testCase: Case, response: HttpResponse, send: Send): Promise<string[]> {
    const { status, body } = response
    if (status === 422) return refusalFaults(testCase, body)
    if (status !== 200 && status !== 201) return hiddenFaults(body)
    const wanted = bodyOf(testCase) as Wanted
    const { secret, ...shown } = JSON.parse(body) as Shown
    learn(shown.queue, secret ?? wanted.secret)
    return [
      ...hiddenFaults(JSON.stringify(shown)),
      ...urlFaults(wanted.url),
      ...wantedFaults(wanted, shown, queueOf(testCase)),
      ...((status === 201 && wanted.secret === undefined) === (secret !== undefined)
        ? []
        : ['the secret is returned when it must not be, or missing']),
      ...signFaults(shown, secret ?? wanted.secret),
      ...(await keptFaults(testCase, shown, send)),
    ]
  }

  async function rotated(
    testCase: Case,
    { status, body, atMs }: HttpResponse,
    send: Send,
  ): Promise<string[]> {
    if (status !== 201) return hiddenFaults(body)
    const { overlap = OVERLAP_S } = bodyOf(testCase) as { overlap?: number }
    const { secret, ...shown } = JSON.parse(body) as Shown
    const [first, ...others] = shown.secrets
    const endMs = Date.now() + overlap * 1_000
    learn(shown.queue, secret)
    return [
      ...hiddenFaults(JSON.stringify(shown)),
      ...(secret === undefined ? ['the new secret is not returned'] : signFaults(shown, secret)),
      ...(first?.expiresAt === null ? [] : ['the new secret expires']),
      ...(others.every(({ expiresAt }) => Date.parse(expiresAt ?? '') <= endMs)
        ? []
        : ['an old secret does not expire in time']),
      ...(overlap > 0 || others.length === 0 ? [] : ['an old secret overlaps']),
      ...(others.every(({ expiresAt }) => Date.parse(expiresAt!) >= atMs)
        ? []
        : ['an expired secret is listed']),
      ...(await keptFaults(testCase, shown, send)),
    ]
  }

  function learn(queue: string, secret: string | undefined): void {
    if (secret !== undefined) secrets.set(queue, [...(secrets.get(queue) ?? []), secret])
  }

  /** GET returns what was put, unless another request changes it. A 410 from the endpoint pauses it, which is a change. */
  async function keptFaults(testCase: Case, shown: Shown, send: Send): Promise<string[]> {
    const found = await show(shown.queue, send)
    if (!spanOf.get(testCase)!.isAlone()) return []
    if (!found) return ['the subscription does not exist']
    if (found.updatedAt !== shown.updatedAt) return found.paused ? [] : ['it changed without a request']
    const { deliveries: _, secrets: live, ...rest } = found
    const { deliveries: __, secrets: put, ...wanted } = shown
    return isDeepStrictEqual(rest, wanted) && live[0]?.id === put[0]?.id ? [] : ['it is stored differently']
  }

  const checks: Record<string, Check> = {
    putSubscription: put,
    rotateSecret: rotated,
    getSubscription(testCase, { status, body }) {
      const shown = JSON.parse(body) as Shown
      const isIts = status !== 200 || shown.queue === queueOf(testCase)
      return [
        ...hiddenFaults(body),
        ...(isIts ? [] : ['it belongs to another queue']),
        ...(shown.secret === undefined ? [] : ['a secret is shown']),
        // Such a subscription should have been rejected.
        ...(shown.deliveries?.lastError?.includes('cannot be sent')
          ? ['an accepted subscription cannot be delivered']
          : []),
      ]
    },
    async deleteSubscription(testCase, { status, body }, send) {
      if (status !== 204) return hiddenFaults(body)
      const found = await show(queueOf(testCase)!, send)
      return found && spanOf.get(testCase)!.isAlone() ? ['the deleted subscription still exists'] : []
    },
  }

  return {
    checks,
    begin(operationId, testCase) {
      const queue = queueOf(testCase)
      if (queue === undefined || !CHANGES.includes(operationId)) return
      spanOf.set(testCase, overlaps.begin(queue))
      if (operationId === 'putSubscription' && isQueueName(queue)) queues.add(queue)
    },
    end: (testCase) => spanOf.get(testCase)?.end(),
    queues: () => [...queues],
    secretsOf: (queue) => secrets.get(queue) ?? [],
  }
}

export async function show(queue: string, send: Send): Promise<Shown | undefined> {
  const { status, body } = await send({
    method: 'GET',
    url: `/queues/${queueSegment(queue)}/subscription`,
    headers: {},
  })
  return status === 200 ? (JSON.parse(body) as Shown) : undefined
}

function hiddenFaults(body: string): string[] {
  // INVALID_JSON quotes a few characters of the body to the client that sent it.
  if (body.includes('"code":"INVALID_JSON"')) return []
  return body.includes(HIDDEN) || SECRET.test(body) ? ['a secret is revealed'] : []
}

/** An accepted URL must lead to this machine. */
function urlFaults(text: string): string[] {
  return mayBeCalled(text) ? [] : ['a forbidden URL was accepted']
}

function mayBeCalled(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, username, password, hostname, href } = new URL(text)
  const isPlain = `${username}${password}` === '' && !href.includes('#')
  return /^https?:$/.test(protocol) && isPlain && isLoopback(hostname)
}

function refusalFaults(testCase: Case, body: string): string[] {
  const { code, errors = [] } = JSON.parse(body) as { code: string; errors?: { pointer: string }[] }
  if (code !== 'INVALID_OPTION') return hiddenFaults(body)
  const [{ pointer } = { pointer: '' }] = errors
  const { url } = bodyOf(testCase) as Wanted
  // `localhost` may also resolve to addresses that are not allowed.
  const isWrong = pointer === '/url' && mayBeCalled(url) && new URL(url).hostname !== 'localhost'
  return [
    ...hiddenFaults(body),
    ...(/^\/(url$|secret$|headers(\/|$))/.test(pointer) ? [] : [`the pointer is ${pointer}`]),
    ...(isWrong ? ['an allowed URL was rejected'] : []),
  ]
}

function wantedFaults(wanted: Wanted, shown: Shown, queue: string | undefined): string[] {
  const { url, concurrency = 10, timeoutMs = 15_000, rateLimit = null, headers = {}, paused = false } = wanted
  const expected = { queue, url, concurrency, timeoutMs, rateLimit, headers: Object.keys(headers) }
  const same = Object.entries(expected).every(([name, value]) =>
    isDeepStrictEqual(shown[name as 'url'], value),
  )
  return [
    ...(same ? [] : ['it is returned differently than it was put']),
    ...((shown.paused !== null) === paused ? [] : ['paused differs from the request']),
    ...(shown.headers.some((name) => RESERVED_HEADERS.test(name)) ? ['a reserved header was accepted'] : []),
  ]
}

function signFaults({ secrets }: Shown, secret: string | undefined): string[] {
  if (secret === undefined) return secrets.length > 0 ? [] : ['it has no secret']
  const id = createHash('sha256').update(secret).digest('hex').slice(0, 8)
  return secrets[0]?.id === id ? [] : ['it is signed with another secret']
}

/** With a colon, since URLs drop the segments `.` and `..`. */
export function queueSegment(queue: string): string {
  return `${encodeURIComponent(queue)}:`
}

function queueOf({ url }: Case): string | undefined {
  try {
    return queueOfSegment(decodeURIComponent(/^\/queues\/([^/?]+)/.exec(url)?.[1] ?? ''))
  } catch {
    return undefined
  }
}
