/** `npm run key`: what it writes, what it prints, what it refuses; and that a secret is nowhere but on the screen. */
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { openKeyRing } from '../../src/auth/key-ring.ts'
import { runKeyCommand } from '../../src/cli/key-command.ts'

async function keyFile(t: Test) {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-keys-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const path = join(folder, 'deep', 'keys.json')
  const run = (...words: string[]) => runKeyCommand(words, path, new Date('2026-11-21T10:00:00.000Z'))
  return { folder, path, run }
}

const mailer = ['create', '--id', 'mailer', '--scopes', 'enqueue,read', '--queues', 'emails,img-*']
const secretIn = (output: string) => /^sluice_\S+/.exec(output)![0]

async function ringOf(t: Test, path: string) {
  const ring = await openKeyRing(path, pino({ level: 'silent' }))
  t.teardown(ring.close)
  return ring
}

t.test('a new key opens what it was made for, and its secret is kept nowhere', async (t) => {
  const { folder, path, run } = await keyFile(t)
  const secret = secretIn(await run(...mailer, '--rate', '100/s'))
  t.match(secret, /^sluice_mailer\.[\w-]{43}$/, '256 random bits')
  const text = await readFile(path, 'utf8')
  t.notOk(text.includes(secret.slice('sluice_mailer.'.length)))
  t.equal((await stat(path)).mode & 0o777, 0o600, 'nobody else reads it')
  t.same(await readdir(join(folder, 'deep')), ['keys.json'], 'no draft is left')
  const ring = await ringOf(t, path)
  const access = ring.find(secret)
  t.match(access, { keyId: 'mailer', rate: { max: 100, windowMs: 1_000 } })
  t.ok(access?.hasScope('enqueue') && access.hasScope('read'))
  for (const scope of ['work', 'schedule', 'manage'] as const) t.notOk(access?.hasScope(scope), scope)
  t.ok(access?.canAccessQueue('emails') && access.canAccessQueue('img-1'))
  t.notOk(access?.canAccessQueue('other'))
})

t.test('two secrets of a key hold until one is revoked; a third has to wait', async (t) => {
  const { path, run } = await keyFile(t)
  const first = secretIn(await run(...mailer))
  const second = secretIn(await run('rotate', '--id', 'mailer'))
  const both = await ringOf(t, path)
  t.ok(both.find(first) && both.find(second))
  await t.rejects(run('rotate', '--id', 'mailer'), { message: /Two secrets of mailer are live/ })
  const [, fingerprint] = / ([0-9a-f]{8}) [0-9a-f]{8}$/m.exec(await run('list'))!
  await run('revoke', '--id', 'mailer', '--secret', fingerprint!)
  const one = await ringOf(t, path)
  t.notOk(one.find(first))
  t.ok(one.find(second))
})

t.test('a revoked key opens nothing, keeps its id, and keeps the door shut', async (t) => {
  const { path, run } = await keyFile(t)
  const secret = secretIn(await run(...mailer))
  await run('revoke', '--id', 'mailer')
  const ring = await ringOf(t, path)
  t.notOk(ring.find(secret))
  t.ok(ring.requiresKey(), 'a file that holds only revoked keys still demands one')
  await t.rejects(run(...mailer), { message: /of a revoked key/ })
  await t.rejects(run('rotate', '--id', 'mailer'), { message: /no live key/ })
  await t.rejects(run('revoke', '--id', 'mailer'), { message: /no live key/ })
})

t.test(
  'the list says what there is, and of secrets only the first characters of their digests',
  async (t) => {
    const { run } = await keyFile(t)
    t.match(await run('list'), /There are no keys/)
    const secret = secretIn(await run(...mailer, '--rate', '6000/min'))
    await run('create', '--id', 'ops', '--scopes', 'manage', '--queues', '*')
    await run('revoke', '--id', 'ops')
    const list = await run('list')
    t.match(
      list,
      /^mailer +enqueue,read +emails,img-\* +6000 in 60 s +2026-11-21T10:00:00\.000Z +[0-9a-f]{8}$/m,
    )
    t.match(list, /^ops +manage +\* +- .* revoked 2026-11-21T10:00:00\.000Z$/m)
    t.notOk(list.includes(secret))
  },
)

t.test('what is wrong with a command is said, and nothing is written', async (t) => {
  const { folder, run } = await keyFile(t)
  const created = (changes: Record<string, string>) => {
    const options = { id: 'a', scopes: 'read', queues: '*', ...changes }
    return ['create', ...Object.entries(options).map(([name, value]) => `--${name}=${value}`)]
  }
  const cases: [words: string[], message: RegExp][] = [
    [[], /^Usage/],
    [['make'], /^Usage/],
    [['list', 'all'], /^Usage/],
    [['create', '--name', 'x'], /Unknown option/],
    [['create', '--scopes', 'read', '--queues', '*'], /--id is missing/],
    [created({ id: 'a:b' }), /--id must match/],
    [created({ scopes: 'read,write' }), /write is no scope: there are enqueue, read/],
    [created({ queues: 'a,b c' }), /b c is no pattern/],
    [created({ queues: '' }), /--queues must match/],
    ...['100', '0/s', '100/day', '-1/s', '1.5/s'].map((rate): [string[], RegExp] => [
      created({ rate }),
      /is not of the form/,
    ]),
    [['revoke', '--id', 'nobody'], /no live key with the id nobody/],
  ]
  for (const [words, message] of cases) await t.rejects(run(...words), { name: 'KeyFileError', message })
  t.same(await readdir(folder), [])
})
