/** Who is sent the jobs of a queue, as it is kept in Redis, as deliveries need it, and as it is shown. */
import { createHash, randomBytes } from 'node:crypto'
import { createSigningSecret } from '../delivery/signature.ts'
import type { Vault } from './secret-vault.ts'

/** As it is kept: what is secret is sealed. */
export interface Subscription {
  queue: string
  /** Another for each change: what was taken for one is not sent by another. */
  revision: string
  url: string
  concurrency: number
  timeoutMs: number
  rateLimit: { max: number; duration: number } | null
  /** Names as given; values sealed. */
  headers: Record<string, string>
  /** The newest first; each signs until it expires. */
  secrets: SealedSecret[]
  paused: { reason: string; at: string } | null
  createdAt: string
  updatedAt: string
}

interface SealedSecret {
  /** For people: the beginning of its SHA-256. */
  id: string
  sealed: string
  createdAt: string
  expiresAt: string | null
}

/** As a client asks for it, already valid. */
export interface SubscriptionRequest {
  url: string
  concurrency?: number
  timeoutMs?: number
  secret?: string
  rateLimit?: { max: number; duration: number }
  headers?: Record<string, string>
  paused?: boolean
}

export const CONCURRENCY = 10
export const TIMEOUT_MS = 15_000
/** How long the secret before signs beside a new one, s. */
export const OVERLAP_S = 86_400

/** `secret`: to be shown this once; `undefined` when there is no new one, or the client knows it. */
export interface SubscriptionChange {
  subscription: Subscription
  secret: string | undefined
}

/**
 * What a PUT makes of it: all is replaced, but its secrets stay, and sign beside a new one for a day. They are sealed anew, so
 * that a SECRET that was replaced is needed no more; one that nobody can open is gone.
 */
export function replace(
  queue: string,
  before: Subscription | undefined,
  request: SubscriptionRequest,
  vault: Vault,
  now: Date,
): SubscriptionChange {
  const { url, concurrency = CONCURRENCY, timeoutMs = TIMEOUT_MS, rateLimit = null, headers = {} } = request
  const at = now.toISOString()
  const sealedHeaders = Object.entries(headers).map(([name, value]) => [name, vault.seal(value)])
  const kept = keepSecrets(before, vault, now)
  const made = kept.length === 0 && request.secret === undefined ? createSigningSecret() : undefined
  const given = request.secret ?? made
  const isNew = given !== undefined && idOf(given) !== kept[0]?.id
  return {
    subscription: {
      ...{ queue, revision: createRevision(), url, concurrency, timeoutMs, rateLimit },
      headers: Object.fromEntries(sealedHeaders) as Record<string, string>,
      secrets: isNew ? addSecret(kept, given, OVERLAP_S, vault, now) : kept,
      paused: request.paused ? { reason: 'It was put so.', at } : null,
      ...{ createdAt: before?.createdAt ?? at, updatedAt: at },
    },
    secret: made,
  }
}

/** With a new secret; those before sign for `overlapS` more. */
export function rotate(before: Subscription, overlapS: number, vault: Vault, now: Date): SubscriptionChange {
  const secret = createSigningSecret()
  const secrets = addSecret(keepSecrets(before, vault, now), secret, overlapS, vault, now)
  const subscription = { ...before, secrets, revision: createRevision(), updatedAt: now.toISOString() }
  return { subscription, secret }
}

export function pause(before: Subscription, reason: string, now: Date): Subscription {
  const at = now.toISOString()
  return { ...before, revision: createRevision(), paused: { reason, at }, updatedAt: at }
}

/** What deliveries are made with; `undefined`: it was sealed with a SECRET that is not there any more. */
export interface Unsealed {
  headers: Record<string, string>
  secrets: { text: string; expiresAtMs: number }[]
}

export function unseal({ headers, secrets }: Subscription, vault: Vault): Unsealed | undefined {
  const opened = Object.entries(headers).map(([name, sealed]) => [name, vault.open(sealed)] as const)
  const known = secrets.map(({ sealed, expiresAt }) => ({
    text: vault.open(sealed),
    expiresAtMs: expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt),
  }))
  if (opened.some(([, value]) => value === undefined) || known.some(({ text }) => text === undefined))
    return undefined
  return {
    headers: Object.fromEntries(opened) as Record<string, string>,
    secrets: known as Unsealed['secrets'],
  }
}

/** As it is shown: of what is secret only that it is there. */
export function describeSubscription({ revision: _, headers, secrets, ...shown }: Subscription, now: Date) {
  return {
    ...shown,
    headers: Object.keys(headers),
    secrets: withoutExpired(secrets, now).map(({ id, createdAt, expiresAt }) => ({
      id,
      createdAt,
      expiresAt,
    })),
  }
}

function addSecret(
  before: SealedSecret[],
  secret: string,
  overlapS: number,
  vault: Vault,
  now: Date,
): SealedSecret[] {
  const end = now.getTime() + overlapS * 1_000
  const id = idOf(secret)
  const expiring = before
    .filter((one) => one.id !== id && overlapS > 0)
    .map((one) => ({ ...one, expiresAt: new Date(Math.min(end, expiryOf(one))).toISOString() }))
  const added = { id, sealed: vault.seal(secret), createdAt: now.toISOString(), expiresAt: null }
  return [added, ...expiring].slice(0, MOST_SECRETS)
}

/** Each is a signature in a header. */
const MOST_SECRETS = 5

function keepSecrets(before: Subscription | undefined, vault: Vault, now: Date): SealedSecret[] {
  return withoutExpired(before?.secrets ?? [], now).flatMap((secret) => {
    const text = vault.open(secret.sealed)
    return text === undefined ? [] : [{ ...secret, sealed: vault.seal(text) }]
  })
}

function withoutExpired(secrets: SealedSecret[], now: Date): SealedSecret[] {
  return secrets.filter((secret) => expiryOf(secret) > now.getTime())
}

function expiryOf({ expiresAt }: SealedSecret): number {
  return expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt)
}

function idOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex').slice(0, 8)
}

function createRevision(): string {
  return randomBytes(9).toString('base64url')
}
