/** The keys in force: read anew when the file changes, and never fewer guards than before by accident. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { addKey, createApiKeySecret, digestOf, type KeyFile, writeKeyFile } from '../../src/auth/key-file.ts'
import { openKeyRing } from '../../src/auth/key-ring.ts'
import { eventually } from '../helpers/app.ts'

const empty: KeyFile = { version: 1, keys: [] }
const withKey = (id: string, secret: string, file = empty) =>
  addKey(file, { id, scopes: ['read'], queues: ['*'], rate: null }, secret, '2026-11-21T10:00:00.000Z')

async function open(t: Test, file?: KeyFile | string) {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-ring-'))
  const path = join(folder, 'keys.json')
  t.teardown(() => rm(folder, { recursive: true }))
  if (typeof file === 'string') await writeFile(path, file)
  else if (file) await writeKeyFile(path, file)
  const ring = await openKeyRing(path, pino({ level: 'silent' }))
  t.teardown(ring.close)
  return { path, ring }
}

t.test(
  'without a file nobody needs a key; with the first key everybody does, without a restart',
  async (t) => {
    const { path, ring } = await open(t)
    t.notOk(ring.requiresKey())
    const secret = createApiKeySecret('first')
    await writeKeyFile(path, withKey('first', secret))
    await eventually(() => ring.requiresKey())
    t.equal(ring.find(secret)?.keyId, 'first')
  },
)

t.test('a secret of another key, a cut one and a longer one are nobody', async (t) => {
  const secret = createApiKeySecret('a')
  const { ring } = await open(t, withKey('b', createApiKeySecret('b'), withKey('a', secret)))
  t.ok(ring.find(secret))
  const others = [
    ...[secret.replace('sluice_a.', 'sluice_b.'), secret.slice(0, -1), `${secret}x`, secret.toUpperCase()],
    ...[
      '',
      'a',
      'sluice_a.',
      'sluice_.x',
      secret.slice('sluice_'.length),
      Buffer.from(digestOf(secret), 'binary').toString('hex'),
    ],
  ]
  for (const other of others) t.notOk(ring.find(other), other)
})

t.test('a file that breaks or vanishes changes nothing but what is told', async (t) => {
  const secret = createApiKeySecret('a')
  const { path, ring } = await open(t, withKey('a', secret))
  await writeFile(path, '{ "version": 1, "keys": [')
  await eventually(() => ring.problem() !== undefined)
  t.match(ring.problem(), /not valid JSON; the keys of before are in force/)
  t.ok(ring.find(secret))
  await rm(path)
  await eventually(() => /is gone/.test(ring.problem() ?? ''))
  t.ok(ring.requiresKey())
  t.ok(ring.find(secret))
  const next = createApiKeySecret('b')
  await writeKeyFile(path, withKey('b', next))
  await eventually(() => ring.find(next) !== undefined)
  t.notOk(ring.find(secret))
  t.equal(ring.problem(), undefined)
})

t.test('a file that cannot be understood stops the start, without repeating what stands in it', async (t) => {
  const marker = 'hunter2'
  const files = [
    `{"${marker}`,
    JSON.stringify({ version: 2, keys: [], note: marker }),
    JSON.stringify({ version: 1, keys: [{ id: 'a', scopes: [marker], queues: [], rate: null }] }),
    JSON.stringify({ ...empty, keys: [...withKey('a', 'x').keys, ...withKey('a', 'y').keys] }),
  ]
  for (const file of files) {
    const error = await open(t, file).then(
      () => undefined,
      (thrown: Error) => thrown,
    )
    t.equal(error?.name, 'KeyFileError', file)
    t.notMatch(error?.message, marker)
  }
})

t.test('requests are counted since the start, also over a change of the key', async (t) => {
  const secret = createApiKeySecret('a')
  const { path, ring } = await open(t, withKey('a', secret))
  ring.find(secret)
  const { keys } = withKey('a', secret)
  await writeKeyFile(path, { ...empty, keys: keys.map((key) => ({ ...key, scopes: ['enqueue'] })) })
  await eventually(() => ring.find(secret)!.hasScope('enqueue'))
  t.ok(ring.requests()['a']! >= 2, `${ring.requests()['a']}`)
  t.notOk(ring.find(secret)!.hasScope('read'))
})
