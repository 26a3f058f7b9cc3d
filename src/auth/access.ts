/** What a caller may do. Derived from an API key (key-ring.ts), or the same for everyone if there are no keys. */
import { SluiceError } from '../errors.ts'

/** The scopes that a route can require. None includes another, not even `manage`. */
export const scopes = ['enqueue', 'read', 'work', 'schedule', 'manage'] as const
export type Scope = (typeof scopes)[number]

export interface Rate {
  /** Requests allowed per window. */
  max: number
  windowMs: number
}

export interface Access {
  /** Id of the key; '' without a key. */
  keyId: string
  hasScope(scope: Scope): boolean
  /** Whether the caller may see the queue. */
  canAccessQueue(queue: string): boolean
  /** Whether that is every queue, also those to come. */
  coversAllQueues: boolean
  /** `undefined`: not limited. */
  rate: Rate | undefined
  /** False once the key is revoked or changed. Long-running responses check it again. */
  isLive(): boolean
}

/** Every caller of a service without keys: all scopes, all queues. */
export const anonymous: Access = {
  keyId: '',
  hasScope: () => true,
  canAccessQueue: () => true,
  coversAllQueues: true,
  rate: undefined,
  isLive: () => true,
}

/** A caller who sent no key to a service with keys: may call routes without a scope, which then show no queue. */
export const unauthenticated: Access = {
  ...anonymous,
  hasScope: () => false,
  canAccessQueue: () => false,
  coversAllQueues: false,
}

/** Throws QUEUE_NOT_FOUND whether or not the queue exists, so that a key cannot probe for queues outside its patterns. */
export function assertQueueAccess(access: Access, queue: string): void {
  if (!access.canAccessQueue(queue)) throw new SluiceError('QUEUE_NOT_FOUND')
}

/**
 * Matches queue names against patterns such as `emails`, `img-*` and `*`; a star matches any characters, or none. After a
 * backslash a character stands for itself, so `a\\*` is the queue `a*`.
 */
export function createQueueMatcher(patterns: string[]): (queue: string) => boolean {
  if (patterns.includes('*')) return () => true
  const parsed = patterns.map(piecesOf)
  const names = new Set(parsed.filter(({ length }) => length === 1).map(([name]) => name!))
  const globs = parsed.filter(({ length }) => length > 1)
  return (queue) => names.has(queue) || globs.some((pieces) => matchesPieces(queue, pieces))
}

/** The texts between the stars of a pattern; one text if it has none. */
function piecesOf(pattern: string): string[] {
  const pieces: string[] = []
  let piece = ''
  for (let at = 0; at < pattern.length; at++) {
    if (pattern[at] === '*') {
      pieces.push(piece)
      piece = ''
    } else {
      if (pattern[at] === '\\' && at + 1 < pattern.length) at++
      piece += pattern[at]
    }
  }
  return [...pieces, piece]
}

/**
 * Whether a text consists of the pieces between the stars, in order. Takes each piece where it first occurs, which is
 * linear in the text per piece; a regular expression would backtrack exponentially for a pattern of many stars.
 */
function matchesPieces(text: string, pieces: string[]): boolean {
  const first = pieces[0]!
  const last = pieces.at(-1)!
  if (text.length < first.length + last.length || !text.startsWith(first) || !text.endsWith(last))
    return false
  let at = first.length
  for (const piece of pieces.slice(1, -1)) {
    const found = text.indexOf(piece, at)
    if (found < 0) return false
    at = found + piece.length
  }
  return at <= text.length - last.length
}
