/** Who is asking, and what that one may do. Made from a key (key-ring.ts); of everyone alike where there are no keys. */
import { SluiceError } from '../errors.ts'

/** What a route may ask for; `manage` does not include the others. */
export const scopes = ['enqueue', 'read', 'work', 'schedule', 'manage'] as const
export type Scope = (typeof scopes)[number]

export interface Rate {
  /** Most requests in a window. */
  max: number
  windowMs: number
}

export interface Access {
  /** Of the key; '' for anyone. */
  keyId: string
  hasScope(scope: Scope): boolean
  /** Whether the queue exists as far as this one can see. */
  canAccessQueue(queue: string): boolean
  /** `undefined`: as many requests as it likes. */
  rate: Rate | undefined
  /** False once the key is revoked or changed: what goes on for long looks at it again. */
  isLive(): boolean
}

/** Where there are no keys: whoever reaches the port. */
export const anonymous: Access = {
  keyId: '',
  hasScope: () => true,
  canAccessQueue: () => true,
  rate: undefined,
  isLive: () => true,
}

/** A caller who sent no key, where there are keys: the routes without a scope are open, and show nothing of any queue. */
export const unauthenticated: Access = { ...anonymous, hasScope: () => false, canAccessQueue: () => false }

/** Throws QUEUE_NOT_FOUND, whether the queue is there or not: a key learns nothing of what lies outside its patterns. */
export function assertQueueAccess(access: Access, queue: string): void {
  if (!access.canAccessQueue(queue)) throw new SluiceError('QUEUE_NOT_FOUND')
}

/** `emails`, `img-*`, `*`: a star stands for any characters, none included. */
export function createQueueMatcher(patterns: string[]): (queue: string) => boolean {
  if (patterns.includes('*')) return () => true
  const names = new Set(patterns.filter((pattern) => !pattern.includes('*')))
  const globs = patterns.filter((pattern) => pattern.includes('*')).map((glob) => glob.split('*'))
  return (queue) => names.has(queue) || globs.some((pieces) => fits(pieces, queue))
}

/**
 * Whether a text is made of the pieces between the stars, in their order. Each is taken where it first occurs, so that no
 * pattern takes longer than the text is long for each piece; a regular expression would try every way there is.
 */
function fits(pieces: string[], text: string): boolean {
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
