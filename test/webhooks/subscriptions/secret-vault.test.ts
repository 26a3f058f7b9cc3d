/** The secret vault: what it seals only a configured SECRET opens, and equal texts cannot be recognised. */
import t from 'tap'
import { createVault } from '../../../src/webhooks/subscriptions/secret-vault.ts'

const OLD = 'o'.repeat(40)
const NEW = 'n'.repeat(40)

t.test('a sealed text opens again, also an empty or non-ASCII one', async (t) => {
  const vault = createVault([NEW])
  for (const text of ['whsec_abc', '', 'Zoë ✓ 𝄞', 'x'.repeat(2_000)])
    t.equal(vault.open(vault.seal(text)), text)
})

t.test('sealing a text twice gives different results, neither of which shows the text', async (t) => {
  const vault = createVault([NEW])
  const [first, second] = [vault.seal('whsec_abcdefgh'), vault.seal('whsec_abcdefgh')]
  t.not(first, second)
  t.not(first.slice(0, 16), second.slice(0, 16), 'the IV is new')
  for (const sealed of [first, second]) {
    t.match(sealed, /^[A-Za-z0-9_-]+$/)
    t.notMatch(Buffer.from(sealed, 'base64url').toString('latin1'), 'whsec_')
  }
})

t.test('a vault with another SECRET cannot open it; two vaults with the same SECRET can', async (t) => {
  const sealed = createVault([OLD]).seal('text')
  t.equal(createVault([OLD]).open(sealed), 'text')
  t.equal(createVault([NEW]).open(sealed), undefined)
})

t.test('while SECRET is rotated the old one still opens, and the first one seals', async (t) => {
  const both = createVault([NEW, OLD])
  t.equal(both.open(createVault([OLD]).seal('old')), 'old')
  t.equal(both.open(createVault([NEW]).seal('new')), 'new')
  const sealed = both.seal('text')
  t.equal(createVault([NEW]).open(sealed), 'text')
  t.equal(createVault([OLD]).open(sealed), undefined)
})

t.test('a text that was altered, cut or extended does not open', async (t) => {
  const vault = createVault([NEW])
  const bytes = Buffer.from(vault.seal('text'), 'base64url')
  for (let index = 0; index < bytes.length; index++) {
    const altered = Buffer.from(bytes)
    altered[index]! ^= 1
    t.equal(vault.open(altered.toString('base64url')), undefined, `byte ${index}`)
  }
  for (let length = 0; length < bytes.length; length++) {
    t.equal(vault.open(bytes.subarray(0, length).toString('base64url')), undefined, `${length} bytes`)
  }
  t.equal(vault.open(Buffer.concat([bytes, Buffer.alloc(1)]).toString('base64url')), undefined, 'extended')
})
