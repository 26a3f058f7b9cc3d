/**
 * Validates what the schema of a subscription cannot express: the URL's addresses, the secret's encoding, the
 * header names.
 */
import { SluiceError } from '../../errors.ts'
import { isSecret } from '../delivery/signature.ts'
import { type AddressGuard, ForbiddenUrlError, UnresolvedNameError } from '../endpoints/address-guard.ts'
import { HEADER_NAME, type SubscriptionBody } from './schemas.ts'

/** The schema lets other names through, whose values it does not check. */
const headerName = new RegExp(HEADER_NAME)
/** Many servers accept 8 KiB of headers, or 16. */
const HEADER_BYTES_MAX = 8_192
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
    const headerBytes = Object.entries(headers).reduce((bytes, one) => bytes + one.join().length, 0)
    if (headerBytes > HEADER_BYTES_MAX) {
      throw invalid('/headers', `must have at most ${HEADER_BYTES_MAX} bytes of names and values in all`)
    }
  }
}

async function checkUrl(guard: AddressGuard, text: string): Promise<void> {
  try {
    await guard.resolve(guard.parse(text))
  } catch (error) {
    if (error instanceof ForbiddenUrlError || error instanceof UnresolvedNameError)
      throw invalid('/url', error.message)
    throw error
  }
}

/** `names`: lower case. */
function checkHeaders(names: string[]): void {
  for (const [index, name] of names.entries()) {
    const pointer = `/headers/${name}`
    if (!headerName.test(name)) throw invalid(pointer, 'is not a valid header name')
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
