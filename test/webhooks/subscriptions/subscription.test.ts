/** Changes of a subscription: what a PUT and a rotation keep, replace and reveal. */
import t from 'tap'
import { createVault } from '../../../src/webhooks/subscriptions/secret-vault.ts'
import {
  describeSubscription,
  hasOldSeals,
  pauseSubscription,
  replaceSubscription,
  resealSubscription,
  rotateSecret,
  type Subscription,
  unseal,
} from '../../../src/webhooks/subscriptions/subscription.ts'
import { sealOld as sealAs010 } from '../old-seals.ts'

const vault = createVault(['n'.repeat(40), 'o'.repeat(40)])
const now = new Date('2026-01-15T12:00:00Z')
const later = (seconds: number) => new Date(now.getTime() + seconds * 1_000)
const url = 'https://example.com/hook'
const sealOld = (text: string) => sealAs010('n'.repeat(40), text)
const secretOf = (byte: number) => `whsec_${Buffer.alloc(32, byte).toString('base64')}`

const create = (request = {}, at = now) =>
  replaceSubscription({ queue: 'emails', keyId: '' }, undefined, { url, ...request }, vault, at)
const replace = (before: Subscription, request = {}, at = now) =>
  replaceSubscription({ queue: 'emails', keyId: '' }, before, { url, ...request }, vault, at)
/** The secrets that sign a delivery at that time, newest first. */
const signingAt = (subscription: Subscription, at: Date) =>
  unseal(subscription, vault)!
    .secrets.filter(({ expiresAtMs }) => expiresAtMs > at.getTime())
    .map(({ text }) => text)

t.test('a new subscription has defaults and a generated secret', async (t) => {
  const { subscription, secret } = create()
  t.match(subscription, {
    queue: 'emails',
    url,
    concurrency: 10,
    timeoutMs: 15_000,
    rateLimit: null,
    headers: {},
    paused: null,
    createdAt: now.toISOString(),
    updatedAt: now.toISOString(),
  })
  t.match(secret, /^whsec_/)
  t.same(signingAt(subscription, now), [secret])
})

t.test('a given secret is used and not returned', async (t) => {
  const { subscription, secret } = create({ secret: secretOf(1) })
  t.equal(secret, undefined)
  t.same(signingAt(subscription, now), [secretOf(1)])
})

t.test('a PUT resets omitted fields, and keeps the secret and the time of creation', async (t) => {
  const first = create({
    concurrency: 3,
    headers: { A: 'b' },
    rateLimit: { max: 1, duration: 1 },
    paused: true,
  })
  t.match(first.subscription.paused, { reason: 'requested by the client', at: now.toISOString() })
  const { subscription, secret } = replace(first.subscription, {}, later(60))
  t.match(subscription, { concurrency: 10, headers: {}, rateLimit: null, paused: null })
  t.equal(subscription.createdAt, now.toISOString())
  t.equal(subscription.updatedAt, later(60).toISOString())
  t.not(subscription.revision, first.subscription.revision)
  t.equal(secret, undefined)
  t.same(signingAt(subscription, later(60)), [first.secret])
})

t.test('a different secret signs first, and the earlier one beside it for a day', async (t) => {
  const first = create({ secret: secretOf(1) }).subscription
  const second = replace(first, { secret: secretOf(2) }).subscription
  t.same(signingAt(second, later(86_399)), [secretOf(2), secretOf(1)])
  t.same(signingAt(second, later(86_400)), [secretOf(2)])
  const again = replace(second, { secret: secretOf(2) }).subscription
  t.same(signingAt(again, now), [secretOf(2), secretOf(1)], 'the same secret adds none')
})

t.test('a rotation keeps earlier secrets for the overlap, never longer than they had', async (t) => {
  const first = create({ secret: secretOf(1) }).subscription
  const second = rotateSecret(first, 60, vault, now)
  t.same(signingAt(second.subscription, later(59)), [second.secret, secretOf(1)])
  t.same(signingAt(second.subscription, later(60)), [second.secret])
  const third = rotateSecret(second.subscription, 600, vault, later(30))
  t.same(signingAt(third.subscription, later(59)), [third.secret, second.secret, secretOf(1)])
  t.same(signingAt(third.subscription, later(60)), [third.secret, second.secret])
  const last = rotateSecret(third.subscription, 0, vault, later(31))
  t.same(signingAt(last.subscription, later(31)), [last.secret])
})

t.test('five secrets sign at most', async (t) => {
  let { subscription } = create()
  for (let i = 0; i < 9; i++) subscription = rotateSecret(subscription, 600, vault, now).subscription
  t.equal(signingAt(subscription, now).length, 5)
})

t.test('a change seals everything with the first SECRET', async (t) => {
  const old = createVault(['o'.repeat(40)])
  const { subscription, secret } = replaceSubscription(
    { queue: 'q', keyId: '' },
    undefined,
    { url },
    old,
    now,
  )
  const onlyNew = createVault(['n'.repeat(40)])
  t.equal(unseal(subscription, onlyNew), undefined)
  const resealed = replace(subscription).subscription
  t.same(
    unseal(resealed, onlyNew)?.secrets.map(({ text }) => text),
    [secret],
  )
})

t.test('secrets that cannot be opened are dropped, and a new one is generated', async (t) => {
  const lost = replaceSubscription(
    { queue: 'q', keyId: '' },
    undefined,
    { url },
    createVault(['x'.repeat(40)]),
    now,
  )
  const { subscription, secret } = replace(lost.subscription)
  t.match(secret, /^whsec_/)
  t.same(signingAt(subscription, now), [secret])
})

t.test('a header that cannot be opened makes the whole subscription unreadable', async (t) => {
  const { subscription } = create({ headers: { Authorization: 'Bearer x' } })
  t.same(unseal(subscription, vault)?.headers, { Authorization: 'Bearer x' })
  t.equal(unseal({ ...subscription, headers: { Authorization: 'altered' } }, vault), undefined)
})

t.test('sealed values open for no other queue, URL or header, even while old seals open', async (t) => {
  const open = createVault(['n'.repeat(40)], { opensOldSeals: true })
  const { subscription } = create({ headers: { Authorization: 'Bearer x' } })
  const { headers, secrets } = subscription
  t.ok(unseal(subscription, open))
  t.equal(unseal({ ...subscription, url: 'https://evil.example/hook' }, open), undefined, 'another URL')
  t.equal(unseal({ ...subscription, queue: 'other' }, open), undefined, 'another queue')
  const other = create({ headers: { 'X-Other': 'y' } }).subscription
  const copied = { ...other, url: 'https://evil.example/hook', headers, secrets }
  t.equal(unseal(copied, open), undefined, 'copied into another subscription')
  const renamed = { ...subscription, headers: { 'X-Shown': headers['Authorization']! } }
  t.equal(unseal(renamed, open), undefined, 'another header')
  const asSecret = { ...subscription, secrets: [{ ...secrets[0]!, sealed: headers['Authorization']! }] }
  t.equal(unseal(asSecret, open), undefined, 'a header as a secret')
})

t.test('a PUT of another URL seals the kept secrets for it, and a rotation keeps them open', async (t) => {
  const first = create({ secret: secretOf(1) }).subscription
  const moved = replace(first, { url: 'https://example.org/moved' }).subscription
  t.same(signingAt(moved, now), [secretOf(1)])
  t.equal(unseal({ ...moved, url }, vault), undefined, 'not for the earlier URL')
  const rotated = rotateSecret(moved, 60, vault, now)
  t.same(signingAt(rotated.subscription, now), [rotated.secret, secretOf(1)])
})

t.test('a PUT keeps no secret of a record whose URL was changed in Redis', async (t) => {
  const tampered = { ...create({ secret: secretOf(1) }).subscription, url: 'https://evil.example/' }
  const { subscription, secret } = replace(tampered)
  t.match(secret, /^whsec_/)
  t.same(signingAt(subscription, now), [secret])
})

t.test('seals of version 0.1.0 are sealed again, and then open without the setting', async (t) => {
  const { subscription } = create({ secret: secretOf(1), headers: { Authorization: 'Bearer x' } })
  const old = {
    ...subscription,
    headers: { Authorization: sealOld('Bearer x') },
    secrets: [{ ...subscription.secrets[0]!, sealed: sealOld(secretOf(1)) }],
  }
  t.ok(hasOldSeals(old))
  t.notOk(hasOldSeals(subscription))
  t.equal(unseal(old, vault), undefined)
  t.equal(resealSubscription(old, vault, now), undefined)
  const opening = createVault(['n'.repeat(40)], { opensOldSeals: true })
  const resealed = resealSubscription(old, opening, now)!
  t.notOk(hasOldSeals(resealed))
  t.not(resealed.revision, old.revision)
  t.same(unseal(resealed, vault)?.headers, { Authorization: 'Bearer x' })
  t.same(signingAt(resealed, now), [secretOf(1)])
})

t.test('a pause changes the revision and says why and since when', async (t) => {
  const { subscription } = create()
  const paused = pauseSubscription(subscription, 'answered 410 in 3 ms', later(5))
  t.same(paused.paused, { reason: 'answered 410 in 3 ms', at: later(5).toISOString() })
  t.not(paused.revision, subscription.revision)
  t.equal(paused.secrets, subscription.secrets)
})

t.test(
  'the description shows neither secrets, header values, the revision nor expired secrets',
  async (t) => {
    const first = create({ headers: { Authorization: 'Bearer x' } })
    const { subscription, secret } = rotateSecret(first.subscription, 60, vault, now)
    const shown = describeSubscription(subscription, later(59))
    t.same(shown.headers, ['Authorization'])
    t.same(
      shown.secrets.map(({ expiresAt }) => expiresAt),
      [null, later(60).toISOString()],
    )
    t.notOk('revision' in shown)
    const text = JSON.stringify(shown)
    for (const hidden of ['Bearer', secret!, first.secret!, subscription.secrets[0]!.sealed]) {
      t.notOk(text.includes(hidden))
    }
    t.equal(describeSubscription(subscription, later(60)).secrets.length, 1)
  },
)

t.test('the key of the last PUT is recorded, kept by other changes and not shown', async (t) => {
  const { subscription } = replaceSubscription({ queue: 'q', keyId: 'first' }, undefined, { url }, vault, now)
  t.equal(subscription.keyId, 'first')
  t.equal(rotateSecret(subscription, 60, vault, now).subscription.keyId, 'first')
  t.equal(pauseSubscription(subscription, 'gone', now).keyId, 'first')
  const next = replaceSubscription({ queue: 'q', keyId: 'next' }, subscription, { url }, vault, now)
  t.equal(next.subscription.keyId, 'next')
  t.notOk('keyId' in describeSubscription(subscription, now))
})
