/** The secret vault: what it seals only a configured SECRET opens, and equal texts cannot be recognised. */
import t from 'tap'
import { createVault, isOldSeal } from '../../../src/webhooks/subscriptions/secret-vault.ts'
import { sealOld } from '../old-seals.ts'

const OLD = 'o'.repeat(40)
const NEW = 'n'.repeat(40)
const AT = 'where it is used'

t.test('a sealed text opens again, also an empty or non-ASCII one', async (t) => {
  const vault = createVault([NEW])
  for (const text of ['whsec_abc', '', 'Zoë ✓ 𝄞', 'x'.repeat(2_000)])
    t.equal(vault.open(vault.seal(text, AT), AT), text)
})

t.test('sealing a text twice gives different results, neither of which shows the text', async (t) => {
  const vault = createVault([NEW])
  const [first, second] = [vault.seal('whsec_abcdefgh', AT), vault.seal('whsec_abcdefgh', AT)]
  t.not(first, second)
  t.not(first.slice(3, 19), second.slice(3, 19), 'the IV is new')
  for (const sealed of [first, second]) {
    t.match(sealed, /^v2\.[A-Za-z0-9_-]+$/)
    t.notMatch(Buffer.from(sealed.slice(3), 'base64url').toString('latin1'), 'whsec_')
  }
})

t.test('a vault with another SECRET cannot open it; two vaults with the same SECRET can', async (t) => {
  const sealed = createVault([OLD]).seal('text', AT)
  t.equal(createVault([OLD]).open(sealed, AT), 'text')
  t.equal(createVault([NEW]).open(sealed, AT), undefined)
})

t.test('while SECRET is rotated the old one still opens, and the first one seals', async (t) => {
  const both = createVault([NEW, OLD])
  t.equal(both.open(createVault([OLD]).seal('old', AT), AT), 'old')
  t.equal(both.open(createVault([NEW]).seal('new', AT), AT), 'new')
  const sealed = both.seal('text', AT)
  t.equal(createVault([NEW]).open(sealed, AT), 'text')
  t.equal(createVault([OLD]).open(sealed, AT), undefined)
})

t.test('a text that was altered, cut or extended does not open', async (t) => {
  const vault = createVault([NEW], { opensOldSeals: true })
  const bytes = Buffer.from(vault.seal('text', AT).slice(3), 'base64url')
  const open = (altered: Buffer) => vault.open(`v2.${altered.toString('base64url')}`, AT)
  t.equal(open(bytes), 'text')
  for (let index = 0; index < bytes.length; index++) {
    const altered = Buffer.from(bytes)
    altered[index]! ^= 1
    t.equal(open(altered), undefined, `byte ${index}`)
  }
  for (let length = 0; length < bytes.length; length++)
    t.equal(open(bytes.subarray(0, length)), undefined, `${length} bytes`)
  t.equal(open(Buffer.concat([bytes, Buffer.alloc(1)])), undefined, 'extended')
})

t.test('a seal opens only where it is bound to, and not in the old format either', async (t) => {
  const vault = createVault([NEW], { opensOldSeals: true })
  const sealed = vault.seal('text', AT)
  for (const elsewhere of ['', 'where it is use', `${AT} `, 'v2.'])
    t.equal(vault.open(sealed, elsewhere), undefined)
  t.equal(vault.open(sealed.slice(3), AT), undefined, 'without its version')
  t.equal(vault.open(vault.seal('text', ''), AT), undefined)
  t.equal(vault.open(vault.seal('text', '').slice(3), ''), undefined, 'bound to an empty text')
})

t.test('a seal of version 0.1.0 opens only while that is configured', async (t) => {
  const old = sealOld(OLD, 'text')
  t.ok(isOldSeal(old))
  t.equal(createVault([NEW, OLD]).open(old, AT), undefined)
  const vault = createVault([NEW, OLD], { opensOldSeals: true })
  t.equal(vault.open(old, AT), 'text')
  t.notOk(isOldSeal(vault.seal('text', AT)))
})
