/** Reloading of API_KEYS_FILE: changes apply without a restart, and no accident opens the service. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { addKey, createApiKeySecret, digestOf, type KeyFile, revoke } from '../../src/auth/key-file.ts'
import { writeKeyFile } from '../../src/auth/key-file-update.ts'
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
  'no key is required without a file; the first key makes keys required, without a restart',
  async (t) => {
    const { path, ring } = await open(t)
    t.notOk(ring.requiresKey())
    const secret = createApiKeySecret('first')
    await writeKeyFile(path, withKey('first', secret))
    await eventually(() => ring.requiresKey())
    t.equal(ring.find(secret)?.keyId, 'first')
  },
)

t.test('an altered, truncated or extended secret finds no key', async (t) => {
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

t.test('a file that becomes invalid or disappears changes nothing, and is reported', async (t) => {
  const secret = createApiKeySecret('a')
  const { path, ring } = await open(t, withKey('a', secret))
  await writeFile(path, '{ "version": 1, "keys": [')
  await eventually(() => ring.problem() !== undefined)
  t.match(ring.problem(), /not valid JSON; the previous keys stay in force/)
  t.ok(ring.find(secret))
  await rm(path)
  await eventually(() => /is missing/.test(ring.problem() ?? ''))
  t.ok(ring.requiresKey())
  t.ok(ring.find(secret))
  const next = createApiKeySecret('b')
  await writeKeyFile(path, withKey('b', next))
  await eventually(() => ring.find(next) !== undefined)
  t.notOk(ring.find(secret))
  t.equal(ring.problem(), undefined)
})

t.test('an invalid file fails the start, and the error does not quote its contents', async (t) => {
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

t.test('the count of requests survives a change of the key', async (t) => {
  const secret = createApiKeySecret('a')
  const { path, ring } = await open(t, withKey('a', secret))
  ring.find(secret)
  const { keys } = withKey('a', secret)
  await writeKeyFile(path, { ...empty, keys: keys.map((key) => ({ ...key, scopes: ['enqueue'] })) })
  await eventually(() => ring.find(secret)!.hasScope('enqueue'))
  t.ok(ring.requests()['a']! >= 2, `${ring.requests()['a']}`)
  t.notOk(ring.find(secret)!.hasScope('read'))
})

t.test('a file that is emptied while the service runs opens nothing', async (t) => {
  const secret = createApiKeySecret('a')
  const { path, ring } = await open(t, withKey('a', secret))
  for (const emptied of ['', '{}', 'null']) {
    await writeFile(path, emptied)
    await eventually(() => ring.problem() !== undefined)
    t.ok(ring.requiresKey() && ring.find(secret), 'the previous keys stay in force')
    await writeKeyFileText(path, withKey('a', secret))
    await eventually(() => ring.problem() === undefined)
  }
  await writeKeyFileText(path, empty)
  await eventually(() => ring.find(secret) === undefined)
  t.ok(ring.requiresKey(), 'a file without keys withdraws them, and the service still requires one')
})

t.test('a key that is revoked while the service starts is withdrawn', async (t) => {
  const secret = createApiKeySecret('a')
  const folder = await mkdtemp(join(tmpdir(), 'sluice-ring-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const path = join(folder, 'keys.json')
  await writeKeyFile(path, withKey('a', secret))
  const ring = await openKeyRing(path, pino({ level: 'silent' }))
  t.teardown(ring.close)
  // Before the first poll of the file.
  await writeKeyFile(path, revoke(withKey('a', secret), 'a', undefined, '2026-11-21T10:00:00.000Z'))
  await eventually(() => ring.find(secret) === undefined)
  t.ok(ring.requiresKey())
})

async function writeKeyFileText(path: string, file: KeyFile): Promise<void> {
  await writeFile(path, JSON.stringify(file))
}
