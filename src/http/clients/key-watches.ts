/**
 * The requests under way of each API key. One timer checks whether the keys are still in force, and ends the requests that
 * a revoked or changed key no longer permits; those that it still permits go on under the changed key.
 */
import type { FastifyRequest } from 'fastify'
import type { Access, Scope } from '../../auth/access.ts'
import { SluiceError } from '../../errors.ts'

export interface WatchedFor {
  /** The queue that the key must be able to see. */
  queue?: string
  /** The scope that the key must have; by default that of the route. */
  scope?: Scope
}

export interface WatchedRequest {
  readonly request: FastifyRequest
  readonly watchedFor: WatchedFor
  /** Whether it counts as a wait. */
  readonly isWait: boolean
  /** The key no longer permits it. May be called again. */
  refuse(refusal: SluiceError): void
}

export interface KeyWatches {
  add(watched: WatchedRequest): void
  remove(watched: WatchedRequest): void
  /** Whether the key permits the request now. If not, refuses it. */
  isPermitted(watched: WatchedRequest): boolean
  /** Number of waits of a key. */
  waitsOf(access: Access): number
  close(): void
}

interface OfKey {
  requests: Set<WatchedRequest>
  waits: number
}

/** Together with the poll of API_KEYS_FILE, 1 s, a revoked key loses its requests within two seconds. */
const SWEEP_MS = 500

/** `isInForce`: whether the access may be used as it was when the request came. */
export function createKeyWatches(isInForce: (access: Access) => boolean): KeyWatches {
  const byAccess = new Map<Access, OfKey>()
  const timer = setInterval(sweep, SWEEP_MS)

  /** Looks at keys, not at requests: ten thousand waits of one key cost nothing while it is in force. */
  function sweep(): void {
    const revoked = [...byAccess].filter(([access]) => !isInForce(access))
    for (const [, { requests }] of revoked) for (const watched of [...requests]) review(watched)
  }

  /** Looks the key up again, and moves the request to the changed key. */
  function review(watched: WatchedRequest): boolean {
    const { request, watchedFor } = watched
    const { access } = request
    const isPermitted = request.mayContinue(watchedFor.scope, watchedFor.queue)
    if (request.access !== access && removeFrom(access, watched)) add(watched)
    if (!isPermitted) watched.refuse(keyChanged())
    return isPermitted
  }

  function add(watched: WatchedRequest): void {
    const { access } = watched.request
    let ofKey = byAccess.get(access)
    if (!ofKey) {
      ofKey = { requests: new Set(), waits: 0 }
      byAccess.set(access, ofKey)
    }
    ofKey.requests.add(watched)
    if (watched.isWait) ofKey.waits++
  }

  function removeFrom(access: Access, watched: WatchedRequest): boolean {
    const ofKey = byAccess.get(access)
    if (!ofKey?.requests.delete(watched)) return false
    if (watched.isWait) ofKey.waits--
    if (ofKey.requests.size === 0) byAccess.delete(access)
    return true
  }

  return {
    add,
    remove: (watched) => void removeFrom(watched.request.access, watched),
    isPermitted: (watched) => isInForce(watched.request.access) || review(watched),
    waitsOf: (access) => byAccess.get(access)?.waits ?? 0,
    close: () => clearInterval(timer),
  }
}

function keyChanged(): SluiceError {
  return new SluiceError('UNAUTHORIZED', {
    detail:
      'The API key was revoked or changed while the request waited, and no longer permits it. Send a valid key.',
  })
}
