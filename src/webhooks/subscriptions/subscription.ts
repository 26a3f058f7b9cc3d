/**
 * A webhook subscription: as stored in Redis (`Subscription`), as needed to deliver (`Unsealed`) and as shown
 * to clients. The functions here are pure but for random secrets and revisions; the clock is passed in.
 */
import { createHash, randomBytes } from 'node:crypto'
import { createSigningSecret, isSecret } from '../delivery/signature.ts'
import { isOldSeal, type Vault } from './secret-vault.ts'

/** As stored: signing secrets and header values are sealed. */
export interface Subscription {
  queue: string
  /** Id of the API key that put it last; '' without a key. Missing in a record of an earlier version. */
  keyId?: string
  /** New with every change: a job taken under one revision is never sent under another. */
  revision: string
  url: string
  concurrency: number
  timeoutMs: number
  rateLimit: { max: number; duration: number } | null
  /** Sealed values by name as given. */
  headers: Record<string, string>
  /** Newest first; each signs until it expires. */
  secrets: SealedSecret[]
  paused: { reason: string; at: string } | null
  createdAt: string
  updatedAt: string
}

interface SealedSecret {
  /** Identifies the secret to people: the first 8 hex digits of its SHA-256. */
  id: string
  sealed: string
  createdAt: string
  expiresAt: string | null
}

/** The queue of a PUT, and the API key that sent it; '' without a key. */
export interface SubscriptionPut {
  queue: string
  keyId: string
}

/** The validated body of a PUT. */
export interface SubscriptionRequest {
  url: string
  concurrency?: number
  timeoutMs?: number
  secret?: string
  rateLimit?: { max: number; duration: number }
  headers?: Record<string, string>
  paused?: boolean
}

export const DEFAULT_CONCURRENCY = 10
export const DEFAULT_TIMEOUT_MS = 15_000
/** How long earlier secrets keep signing beside a new one, s. */
export const DEFAULT_OVERLAP_S = 86_400
/** Each active secret adds a signature to a header. */
export const MAX_SECRETS = 5

export interface SubscriptionChange {
  subscription: Subscription
  /** A generated secret, to be shown this once; `undefined` when none was generated. */
  secret: string | undefined
}

/**
 * Applies a PUT: every field is replaced except the secrets, which are kept and sign beside a new one for a
 * day. They are sealed again with the first secret of SECRET, so the others are no longer needed afterwards;
 * a secret that cannot be opened is dropped.
 */
export function replaceSubscription(
  { queue, keyId }: SubscriptionPut,
  before: Subscription | undefined,
  request: SubscriptionRequest,
  vault: Vault,
  now: Date,
): SubscriptionChange {
  const at = now.toISOString()
  const target = { queue, url: request.url }
  const kept = resealSecrets(before, target, vault, now)
  const generated = kept.length === 0 && request.secret === undefined ? createSigningSecret() : undefined
  const secret = request.secret ?? generated
  const isNewSecret = secret !== undefined && idOf(secret) !== kept[0]?.id
  return {
    subscription: {
      queue,
      keyId,
      revision: createRevision(),
      url: request.url,
      concurrency: request.concurrency ?? DEFAULT_CONCURRENCY,
      timeoutMs: request.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      rateLimit: request.rateLimit ?? null,
      headers: sealHeaders(request.headers ?? {}, target, vault),
      secrets: isNewSecret
        ? addSecret(kept, sealSecret(secret, target, vault, now), DEFAULT_OVERLAP_S, now)
        : kept,
      paused: request.paused ? { reason: 'requested by the client', at } : null,
      createdAt: before?.createdAt ?? at,
      updatedAt: at,
    },
    secret: generated,
  }
}

/** Adds a generated secret; earlier ones keep signing for `overlapS` seconds, or not at all if it is 0. */
export function rotateSecret(
  before: Subscription,
  overlapS: number,
  vault: Vault,
  now: Date,
): SubscriptionChange {
  const secret = createSigningSecret()
  const added = sealSecret(secret, before, vault, now)
  const secrets = addSecret(resealSecrets(before, before, vault, now), added, overlapS, now)
  const subscription = { ...before, secrets, revision: createRevision(), updatedAt: now.toISOString() }
  return { subscription, secret }
}

/** Whether a secret or a header value is sealed as by version 0.1.0. */
export function hasOldSeals({ headers, secrets }: Subscription): boolean {
  return Object.values(headers).some(isOldSeal) || secrets.some(({ sealed }) => isOldSeal(sealed))
}

/** Seals everything again; `undefined` when a value cannot be opened. */
export function resealSubscription(before: Subscription, vault: Vault, now: Date): Subscription | undefined {
  const headers = unseal(before, vault)?.headers
  if (!headers) return undefined
  return {
    ...before,
    headers: sealHeaders(headers, before, vault),
    secrets: resealSecrets(before, before, vault, now),
    revision: createRevision(),
  }
}

export function pauseSubscription(before: Subscription, reason: string, now: Date): Subscription {
  const at = now.toISOString()
  return { ...before, revision: createRevision(), paused: { reason, at }, updatedAt: at }
}

/** The opened headers and secrets that deliveries are made with. */
export interface Unsealed {
  headers: Record<string, string>
  secrets: { text: string; expiresAtMs: number }[]
}

/** `undefined` when a value cannot be opened, or is not what it was sealed as. */
export function unseal(subscription: Subscription, vault: Vault): Unsealed | undefined {
  const openedHeaders = Object.entries(subscription.headers).map(
    ([name, sealed]) => [name, vault.open(sealed, headerBinding(subscription, name))] as const,
  )
  const openedSecrets = subscription.secrets.map((secret) => ({
    text: vault.open(secret.sealed, secretBinding(subscription)),
    expiresAtMs: expiryMsOf(secret),
  }))
  if (openedHeaders.some(([, value]) => value === undefined)) return undefined
  if (!openedSecrets.every(({ text }) => text !== undefined && isSecret(text))) return undefined
  return {
    headers: Object.fromEntries(openedHeaders) as Record<string, string>,
    secrets: openedSecrets as Unsealed['secrets'],
  }
}

/** For clients: header names without values, secrets by id, and neither revision, key nor expired secrets. */
export function describeSubscription(
  { revision: _, keyId: _keyId, headers, secrets, ...shown }: Subscription,
  now: Date,
) {
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

/** Where sealed values are sent. A seal of one queue or URL does not open for another. */
type Target = Pick<Subscription, 'queue' | 'url'>

function headerBinding({ queue, url }: Target, name: string): string {
  return JSON.stringify(['header', queue, url, name])
}

function secretBinding({ queue, url }: Target): string {
  return JSON.stringify(['secret', queue, url])
}

function sealHeaders(headers: Record<string, string>, target: Target, vault: Vault): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, vault.seal(value, headerBinding(target, name))]),
  )
}

function sealSecret(secret: string, target: Target, vault: Vault, now: Date): SealedSecret {
  const sealed = vault.seal(secret, secretBinding(target))
  return { id: idOf(secret), sealed, createdAt: now.toISOString(), expiresAt: null }
}

function addSecret(before: SealedSecret[], added: SealedSecret, overlapS: number, now: Date): SealedSecret[] {
  const overlapEndMs = now.getTime() + overlapS * 1_000
  const expiring = before
    .filter((one) => one.id !== added.id && overlapS > 0)
    .map((one) => ({ ...one, expiresAt: new Date(Math.min(overlapEndMs, expiryMsOf(one))).toISOString() }))
  return [added, ...expiring].slice(0, MAX_SECRETS)
}

/** Those of `before`, sealed for `target`. One that cannot be opened is left out. */
function resealSecrets(
  before: Subscription | undefined,
  target: Target,
  vault: Vault,
  now: Date,
): SealedSecret[] {
  if (!before) return []
  return withoutExpired(before.secrets, now).flatMap((secret) => {
    const text = vault.open(secret.sealed, secretBinding(before))
    if (text === undefined || !isSecret(text)) return []
    return [{ ...secret, sealed: vault.seal(text, secretBinding(target)) }]
  })
}

function withoutExpired(secrets: SealedSecret[], now: Date): SealedSecret[] {
  return secrets.filter((secret) => expiryMsOf(secret) > now.getTime())
}

function expiryMsOf({ expiresAt }: SealedSecret): number {
  return expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt)
}

function idOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex').slice(0, 8)
}

function createRevision(): string {
  return randomBytes(9).toString('base64url')
}
