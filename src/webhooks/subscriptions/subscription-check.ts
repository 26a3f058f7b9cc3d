/**
 * Validates what the schema of a subscription cannot express: the URL's addresses, the secret's encoding, the
 * header names.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { SluiceError } from '../../errors.ts'
import { type AddressGuard, ForbiddenUrlError } from '../delivery/address-guard.ts'
import { isSecret } from '../delivery/signature.ts'
import type { SubscriptionBody } from './schemas.ts'

/** RFC 9110 §5.1, lower case. */
const HEADER_NAME = /^[a-z0-9!#$%&'*+.^_`|~-]{1,100}$/
/** Headers that this service or the HTTP connection sets, and those that change how the body is read. */
const RESERVED_HEADERS = new Set([
  'host',
  'content-length',
  'content-type',
  'transfer-encoding',
  'connection',
  'keep-alive',
  'upgrade',
  'te',
  'trailer',
  'expect',
  'accept-encoding',
  'proxy-authorization',
  'proxy-connection',
  'user-agent',
  'traceparent',
])
/** Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. */
const RESERVED_PREFIX = 'webhook-'

/** Rejects with INVALID_OPTION and a pointer to the invalid field. */
export function createSubscriptionCheck(guard: AddressGuard): (body: SubscriptionBody) => Promise<void> {
  return async function checkSubscription({ url, secret, headers = {} }) {
    await checkUrl(guard, url)
    if (secret !== undefined && !isSecret(secret)) {
      throw invalid('/secret', 'must be whsec_ and the base64 of 24 to 64 bytes')
    }
    checkHeaders(Object.keys(headers).map((name) => name.toLowerCase()))
  }
}

/** The system resolver may take 30 s for a name whose servers do not respond. */
const RESOLVE_TIMEOUT_MS = 5_000

async function checkUrl(guard: AddressGuard, text: string): Promise<void> {
  const deadline = new AbortController()
  try {
    await Promise.race([guard.resolve(guard.parse(text)), rejectAtDeadline(deadline.signal)])
  } catch (error) {
    if (error instanceof ForbiddenUrlError) throw invalid('/url', error.message)
    throw error
  } finally {
    deadline.abort()
  }
}

async function rejectAtDeadline(signal: AbortSignal): Promise<never> {
  await sleep(RESOLVE_TIMEOUT_MS, undefined, { signal })
  throw new ForbiddenUrlError(`The name was not resolved within ${RESOLVE_TIMEOUT_MS} ms.`)
}

/** `names`: lower case. */
function checkHeaders(names: string[]): void {
  for (const [index, name] of names.entries()) {
    const pointer = `/headers/${name}`
    if (!HEADER_NAME.test(name)) throw invalid(pointer, 'is not a valid header name')
    if (RESERVED_HEADERS.has(name) || name.startsWith(RESERVED_PREFIX)) {
      throw invalid(pointer, 'is set by the service; remove it')
    }
    if (names.indexOf(name) !== index) {
      throw invalid(pointer, 'appears twice; header names are case-insensitive')
    }
  }
}

function invalid(pointer: string, detail: string): SluiceError {
  return new SluiceError('INVALID_OPTION', { errors: [{ pointer, detail }], outcome: 'not_executed' })
}
