/** What the schema of a subscription cannot say: whether its URL may be called, its secret signs, its headers may be chosen. */
import { setTimeout } from 'node:timers/promises'
import { SluiceError } from '../../errors.ts'
import { type AddressGuard, ForbiddenUrlError } from '../delivery/address-guard.ts'
import { isSecret } from '../delivery/signature.ts'
import type { SubscriptionBody } from './schemas.ts'

/** RFC 9110 §5.1. */
const HEADER_NAME = /^[a-z0-9!#$%&'*+.^_`|~-]{1,100}$/
/** Ours, the connection's, and those that say how the body is to be read. */
const RESERVED = new Set([
  ...['host', 'content-length', 'content-type', 'transfer-encoding', 'connection', 'keep-alive', 'upgrade'],
  ...[
    'te',
    'trailer',
    'expect',
    'accept-encoding',
    'proxy-authorization',
    'proxy-connection',
    'user-agent',
    'traceparent',
  ],
])

/** Throws INVALID_OPTION, with a pointer to what is at fault. */
export function createSubscriptionCheck(guard: AddressGuard): (body: SubscriptionBody) => Promise<void> {
  return async ({ url, secret, headers = {} }) => {
    try {
      await Promise.race([guard.resolve(guard.parse(url)), late()])
    } catch (error) {
      if (error instanceof ForbiddenUrlError) throw refusal('/url', error.message)
      throw error
    }
    if (secret !== undefined && !isSecret(secret)) {
      throw refusal('/secret', 'must be whsec_ and the base64 of 24 to 64 bytes')
    }
    const names = Object.keys(headers).map((name) => name.toLowerCase())
    for (const [index, name] of names.entries()) {
      if (!HEADER_NAME.test(name)) throw refusal(`/headers/${name}`, 'is no name of a header')
      if (!RESERVED.has(name) && !name.startsWith('webhook-') && names.indexOf(name) === index) continue
      throw refusal(`/headers/${name}`, 'is set by the service, or is there twice')
    }
  }
}

/** The system's resolver may take half a minute, for a name whose servers are silent. */
const RESOLVE_MS = 5_000

async function late(): Promise<never> {
  await setTimeout(RESOLVE_MS, undefined, { ref: false })
  throw new ForbiddenUrlError('The name is not resolved in time.')
}

function refusal(pointer: string, detail: string): SluiceError {
  return new SluiceError('INVALID_OPTION', { errors: [{ pointer, detail }], outcome: 'not_executed' })
}
