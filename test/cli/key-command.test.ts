/** `npm run key`: what it writes, prints and refuses, and that a secret is printed but never stored. */
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { createQueueMatcher } from '../../src/auth/access.ts'
import { readKeyFile } from '../../src/auth/key-file.ts'
import { openKeyRing } from '../../src/auth/key-ring.ts'
import { keyCommand, runKeyCommand } from '../../src/cli/key-command.ts'
import { runCommand } from '../../src/cli/run-command.ts'

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

t.test('a new key grants what it was created with, and its secret is stored nowhere', async (t) => {
  const { folder, path, run } = await keyFile(t)
  const secret = secretIn(await run(...mailer, '--rate', '100/s'))
  t.match(secret, /^sluice_mailer\.[\w-]{43}$/, '256 random bits')
  const text = await readFile(path, 'utf8')
  t.notOk(text.includes(secret.slice('sluice_mailer.'.length)))
  t.equal((await stat(path)).mode & 0o777, 0o600, 'readable by this user only')
  t.same(await readdir(join(folder, 'deep')), ['keys.json'], 'no draft is left')
  const ring = await ringOf(t, path)
  const access = ring.find(secret)
  t.match(access, { keyId: 'mailer', rate: { max: 100, windowMs: 1_000 } })
  t.ok(access?.hasScope('enqueue') && access.hasScope('read'))
  for (const scope of ['work', 'schedule', 'manage'] as const) t.notOk(access?.hasScope(scope), scope)
  t.ok(access?.canAccessQueue('emails') && access.canAccessQueue('img-1'))
  t.notOk(access?.canAccessQueue('other'))
})

t.test('two secrets of a key are valid until one is revoked; a third is refused', async (t) => {
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

t.test('a revoked key grants nothing, keeps its id, and the service still requires a key', async (t) => {
  const { path, run } = await keyFile(t)
  const secret = secretIn(await run(...mailer))
  await run('revoke', '--id', 'mailer')
  const ring = await ringOf(t, path)
  t.notOk(ring.find(secret))
  t.ok(ring.requiresKey(), 'also where the file holds only revoked keys')
  await t.rejects(run(...mailer), { message: /of a revoked key/ })
  await t.rejects(run('rotate', '--id', 'mailer'), { message: /No live key/ })
  await t.rejects(run('revoke', '--id', 'mailer'), { message: /No live key/ })
})

t.test('the list shows every key, and only the first characters of the digests of its secrets', async (t) => {
  const { run } = await keyFile(t)
  t.match(await run('list'), /There are no API keys: the service listens on loopback only/)
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
})

t.test('a mistake in the arguments is reported, and nothing is written', async (t) => {
  const { folder, run } = await keyFile(t)
  const created = (changes: Record<string, string>) => {
    const options = { id: 'a', scopes: 'read', queues: '*', ...changes }
    return ['create', ...Object.entries(options).map(([name, value]) => `--${name}=${value}`)]
  }
  const cases: [words: string[], message: RegExp][] = [
    [[], /^Usage/],
    [['make'], /^make is not an action\. Choose from: create, rotate, revoke, list\n\nUsage/],
    [['list', 'all'], /^list all is not an action\. Choose from: create, rotate, revoke, list\n\nUsage/],
    [['create', '--name', 'x'], /Unknown option/],
    [['create', '--scopes', 'read', '--queues', '*'], /--id is missing/],
    [created({ id: 'a:b' }), /--id must match/],
    [created({ scopes: 'read,write' }), /write is not a scope\. Choose from: enqueue, read/],
    [created({ queues: 'a,b:c' }), /"b:c" is not a queue pattern: it must match/],
    [created({ queues: 'a,,b' }), /"" is not a queue pattern: it must match/],
    [created({ queues: 'a, b' }), /" b" starts or ends with a space/],
    [created({ queues: '' }), /--queues must match/],
    ...['100', '0/s', '100/day', '-1/s', '1.5/s'].map((rate): [string[], RegExp] => [
      created({ rate }),
      /must have the form 100\/s/,
    ]),
    [['revoke', '--id', 'nobody'], /No live key has the id nobody/],
  ]
  for (const [words, message] of cases) await t.rejects(run(...words), { name: 'KeyFileError', message })
  t.same(await readdir(folder), [])
})

t.test('a pattern may name any queue; a comma after a backslash is part of it', async (t) => {
  const { path, run } = await keyFile(t)
  await run('create', '--id=a', '--scopes=read', '--queues=a b/é,x\\,y,\\*,\\ z,w\\\\,v')
  const [key] = (await readKeyFile(path))!.keys
  t.same(key!.queues, ['a b/é', 'x\\,y', '\\*', '\\ z', 'w\\\\', 'v'])
  const matches = createQueueMatcher(key!.queues)
  for (const queue of ['a b/é', 'x,y', '*', ' z', 'w\\', 'v']) t.ok(matches(queue), queue)
  for (const queue of ['x', 'y', 'a', 'z', 'w', '\\*']) t.notOk(matches(queue), queue)
})

async function runInProcess(args: string[], env: Record<string, string>) {
  let printed = ''
  let errors = ''
  const code = await runCommand(keyCommand, args, {
    env,
    print: (text) => {
      printed += text
    },
    printError: (text) => {
      errors += text
    },
    now: () => new Date('2026-11-21T10:00:00.000Z'),
  })
  return { code, printed, errors }
}

t.test('--help prints the usage and exits with 0, wherever it is among the arguments', async (t) => {
  for (const args of [['--help'], ['create', '--help'], ['-h']]) {
    const expected = { code: 0, printed: keyCommand.usage, errors: '' }
    t.same(await runInProcess(args, { PORT: 'eighty' }), expected, args.join(' '))
  }
  for (const action of ['create', 'rotate', 'revoke', 'list']) t.match(keyCommand.usage, `-- ${action}`)
})

t.test(
  'the command reads API_KEYS_FILE, and a mistake goes to standard error with exit code 1',
  async (t) => {
    const { path } = await keyFile(t)
    const env = { API_KEYS_FILE: path }
    t.match(await runInProcess(mailer, env), { code: 0, printed: /^sluice_mailer\./, errors: '' })
    t.match(await runInProcess(['list'], env), { code: 0, printed: /^mailer /m })
    t.match(await runInProcess(['create'], env), { code: 1, printed: '', errors: /^--id is missing\n$/ })
    t.match(await runInProcess(['list'], { PORT: 'eighty' }), { code: 1, errors: /PORT must be/ })
  },
)

t.test('an unexpected error is not taken for a mistake of the user', async (t) => {
  const broken = { ...keyCommand, run: () => Promise.reject(new TypeError('bug')) }
  const context = { env: {}, print: () => {}, printError: () => {}, now: () => new Date() }
  await t.rejects(runCommand(broken, [], context), TypeError)
})
