/** Signatures, verified as an endpoint does: with the reference library of Standard Webhooks. */

import { Webhook } from 'standardwebhooks'
import t from 'tap'
import { createSigningSecret, isSecret, sign } from '../../../src/webhooks/delivery/signature.ts'

const nowS = () => Math.floor(Date.now() / 1_000)
const body = JSON.stringify({ id: 'emails:1', name: 'welcome', data: { to: 'Zoë ✓ 𝄞' } })

function headersOf(secrets: string[], timestampS = nowS(), id = 'emails:1.1') {
  return {
    'webhook-id': id,
    'webhook-timestamp': `${timestampS}`,
    'webhook-signature': sign(secrets, id, timestampS, body),
  }
}

t.test('the reference library accepts a signed body, as text and as bytes', async (t) => {
  const secret = createSigningSecret()
  const webhook = new Webhook(secret)
  t.same(webhook.verify(body, headersOf([secret])), JSON.parse(body))
  t.equal(sign([secret], 'a', 1, body), sign([secret], 'a', 1, Buffer.from(body)))
  t.equal(sign([secret], 'a', 1_700_000_000, body), webhook.sign('a', new Date(1_700_000_000_000), body))
})

t.test('the signature equals the example in the specification', async (t) => {
  const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
  const signature = sign([secret], 'msg_p5jXN8AQM9LWM0D4loKWxJek', 1_614_265_330, '{"test": 2432232314}')
  t.equal(signature, 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=')
})

t.test('while two secrets are active, either verifies the request', async (t) => {
  const [old, next, other] = [createSigningSecret(), createSigningSecret(), createSigningSecret()]
  const headers = headersOf([old, next])
  t.match(headers['webhook-signature'], /^v1,[A-Za-z0-9+/]{43}= v1,[A-Za-z0-9+/]{43}=$/)
  t.ok(new Webhook(old).verify(body, headers))
  t.ok(new Webhook(next).verify(body, headers))
  t.throws(() => new Webhook(other).verify(body, headers), /No matching signature/)
})

t.test('a request that was altered or replayed later is rejected', async (t) => {
  const secret = createSigningSecret()
  const webhook = new Webhook(secret)
  const headers = headersOf([secret])
  t.throws(() => webhook.verify(body.replace('welcome', 'Welcome'), headers), /No matching signature/)
  t.throws(() => webhook.verify(body, { ...headers, 'webhook-id': 'emails:2.1' }), /No matching signature/)
  const sooner = { ...headers, 'webhook-timestamp': `${nowS() - 60}` }
  t.throws(() => webhook.verify(body, sooner), /No matching signature/)
  t.throws(() => webhook.verify(body, headersOf([secret], nowS() - 301)), /too old/)
  t.throws(() => webhook.verify(body, headersOf([secret], nowS() + 310)), /too new/)
})

t.test('every generated secret is different and has the specified form', async (t) => {
  const secrets = Array.from({ length: 100 }, createSigningSecret)
  t.equal(new Set(secrets).size, 100)
  for (const secret of secrets) {
    t.match(secret, /^whsec_[A-Za-z0-9+/]{43}=$/)
    t.ok(isSecret(secret))
  }
})

t.test('a secret is 24 to 64 bytes in padded standard base64', async (t) => {
  const of = (bytes: number) => `whsec_${Buffer.alloc(bytes, 0xff).toString('base64')}`
  for (const bytes of [24, 25, 26, 32, 64]) t.ok(isSecret(of(bytes)), `${bytes} bytes`)
  for (const bytes of [0, 1, 23, 65, 1_000]) t.notOk(isSecret(of(bytes)), `${bytes} bytes`)
  const secret = of(32)
  const wrong = [
    '',
    'whsec_',
    secret.slice('whsec_'.length),
    secret.replace('whsec_', 'WHSEC_'),
    secret.replace('=', ''),
    `${secret}=`,
    `${secret} `,
    ` ${secret}`,
    `${secret}\n`,
    secret.replaceAll('/', '_'),
    secret.replace('whsec_', 'whsec_!'),
    `${secret.slice(0, -2)}9=`,
  ]
  for (const text of wrong) t.notOk(isSecret(text), JSON.stringify(text))
})

t.test('signing with a malformed secret throws, without quoting it', async (t) => {
  t.throws(() => sign(['whsec_hunter2'], 'a', 1, body), { message: /^(?!.*hunter2).*not of the form/ })
  t.throws(() => sign([createSigningSecret(), ''], 'a', 1, body), /not of the form/)
})
