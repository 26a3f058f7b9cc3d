/** Changes to API_KEYS_FILE by many processes at once, by processes that are killed, and to files that cannot be changed. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import {
  chmod,
  lstat,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { buildSync } from 'esbuild'
import t, { type Test } from 'tap'
import { addKey, type KeyFile, readKeyFile, revoke } from '../../src/auth/key-file.ts'
import { updateKeyFile, writeKeyFile } from '../../src/auth/key-file-update.ts'

const NOW = '2026-11-21T10:00:00.000Z'
const isRoot = process.getuid?.() === 0

const add = (id: string) => (file: KeyFile) =>
  addKey(file, { id, scopes: ['read'], queues: ['*'], rate: null }, `sluice_${id}.x`, NOW)
const remove = (id: string) => (file: KeyFile) => revoke(file, id, undefined, NOW)

async function keyFile(t: Test, ids: string[] = []) {
  const folder = t.testdir({})
  const path = join(folder, 'keys.json')
  if (ids.length > 0) {
    let file: KeyFile = { version: 1, keys: [] }
    for (const id of ids) file = add(id)(file)
    await writeKeyFile(path, file)
  }
  return { folder, path }
}

/** One file without imports: twenty processes that each load every module would keep a small machine busy for minutes. */
function bundle(t: Test, contents: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-program-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const outfile = join(folder, 'program.mjs')
  const stdin = { contents, resolveDir: process.cwd(), loader: 'ts' as const }
  buildSync({ stdin, outfile, bundle: true, platform: 'node', format: 'esm' })
  return outfile
}

function start(program: string, path: string, args: string[] = []): ChildProcess {
  return spawn(process.execPath, [program, ...args], {
    env: { PATH: process.env['PATH'] ?? '', API_KEYS_FILE: path },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

const byId = async (path: string) => new Map((await readKeyFile(path))!.keys.map((key) => [key.id, key]))

/** The id of a process that has ended. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' })
  await once(child, 'exit')
  return child.pid!
}

t.test(
  'of twenty processes that create and revoke keys at once, none loses the change of another',
  async (t) => {
    const old = Array.from({ length: 10 }, (_, i) => `old-${i}`)
    const { folder, path } = await keyFile(t, old)
    const created = old.map((_, i) => `new-${i}`)
    const program = bundle(t, "import './src/cli/key.ts'")
    const children = [
      ...created.map((id) =>
        start(program, path, ['create', '--id', id, '--scopes', 'read', '--queues', '*']),
      ),
      ...old.map((id) => start(program, path, ['revoke', '--id', id])),
    ]
    const codes = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]))
    t.same(
      codes,
      children.map(() => 0),
    )
    const keys = await byId(path)
    for (const id of created) t.match(keys.get(id), { revokedAt: null }, id)
    for (const id of old) t.match(keys.get(id), { revokedAt: String, secrets: [] }, id)
    t.same(await readdir(folder), ['keys.json'], 'no lock and no draft is left')
  },
)

t.test('a hundred changes within one process are all kept', async (t) => {
  const { path } = await keyFile(t)
  await Promise.all(Array.from({ length: 100 }, (_, i) => updateKeyFile(path, add(`k${i}`), 60_000)))
  t.equal((await byId(path)).size, 100)
})

t.test(
  'a process that is killed at any moment leaves a whole file, and the next change succeeds',
  async (t) => {
    const { path } = await keyFile(t, ['kept'])
    const program = bundle(
      t,
      `
    import { addKey } from './src/auth/key-file.ts'
    import { updateKeyFile } from './src/auth/key-file-update.ts'
    const request = { scopes: ['read'], queues: ['*'], rate: null }
    for (let i = 0; ; i++) {
      await updateKeyFile(process.env.API_KEYS_FILE, (file) =>
        addKey(file, { ...request, id: process.pid + '-' + i }, 'secret', '${NOW}'))
      if (i === 0) console.log('running')
    }`,
    )
    let previous = 1
    for (let kill = 0; kill < 8; kill++) {
      const child = start(program, path)
      await once(child.stdout!, 'data')
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20))
      child.kill('SIGKILL')
      await once(child, 'exit')
      const { keys } = (await readKeyFile(path))!
      t.ok(keys.length > previous && keys[0]!.id === 'kept', 'every change before the kill is in the file')
      previous = keys.length
    }
    await updateKeyFile(path, add('after'))
    t.ok((await byId(path)).has('after'))
  },
)

t.test(
  'the lock of a process that has ended is taken over, also when it ended while writing the lock',
  async (t) => {
    const { path } = await keyFile(t, ['a'])
    await writeFile(`${path}.lock`, JSON.stringify({ pid: await deadPid(), host: hostname(), nonce: 'x' }))
    await updateKeyFile(path, remove('a'))
    await writeFile(`${path}.lock`, '')
    await writeFile(`${path}.lock.takeover`, '')
    const longAgo = new Date(Date.now() - 60_000)
    await utimes(`${path}.lock`, longAgo, longAgo)
    await utimes(`${path}.lock.takeover`, longAgo, longAgo)
    await updateKeyFile(path, add('b'))
    t.same([...(await byId(path)).keys()], ['a', 'b'])
  },
)

t.test('a lock that is held is reported after a bounded wait, and nothing is changed', async (t) => {
  const { path } = await keyFile(t, ['a'])
  const before = await readFile(path, 'utf8')
  const owners = [
    { pid: process.ppid, host: hostname(), nonce: 'x' },
    { pid: await deadPid(), host: 'another-machine', nonce: 'x' },
  ]
  for (const owner of owners) {
    await writeFile(`${path}.lock`, JSON.stringify(owner))
    const startedAt = performance.now()
    await t.rejects(updateKeyFile(path, remove('a'), 100), {
      name: 'KeyFileError',
      message: new RegExp(`^Process ${owner.pid} on ${owner.host} is changing .*remove .*keys\\.json\\.lock`),
    })
    t.ok(performance.now() - startedAt < 5_000)
  }
  t.equal(await readFile(path, 'utf8'), before)
  t.ok(await stat(`${path}.lock`), 'the lock of the other process is left in place')
})

t.test('a change that is refused leaves the file and releases the lock', async (t) => {
  const { folder, path } = await keyFile(t, ['a'])
  await t.rejects(updateKeyFile(path, add('a')), { message: /The id a is in use/ })
  t.same(await readdir(folder), ['keys.json'])
})

t.test(
  'a lock that an operator removed meanwhile does not let two changes overwrite each other',
  async (t) => {
    const { path } = await keyFile(t, ['a'])
    const change = updateKeyFile(path, (file) => {
      rmSync(`${path}.lock`)
      return remove('a')(file)
    })
    await t.rejects(change, { message: /lock was removed meanwhile\. Try again\./ })
    t.match((await byId(path)).get('a'), { revokedAt: null })
  },
)

t.test('the permissions of an existing file are kept, without write access for others', async (t) => {
  const { path } = await keyFile(t)
  await updateKeyFile(path, add('a'))
  t.equal((await stat(path)).mode & 0o777, 0o600, 'a new file is readable by this user only')
  for (const [mode, kept] of [
    [0o640, 0o640],
    [0o666, 0o644],
  ] as const) {
    await chmod(path, mode)
    await updateKeyFile(path, add(`mode-${mode}`))
    t.equal((await stat(path)).mode & 0o777, kept)
  }
})

t.test('the owner of an existing file is kept', { skip: !isRoot && 'needs root' }, async (t) => {
  const { path } = await keyFile(t, ['a'])
  const { chown } = await import('node:fs/promises')
  await chown(path, 65534, 65534)
  await updateKeyFile(path, remove('a'))
  t.match(await stat(path), { uid: 65534, gid: 65534 })
})

t.test('a link is refused by name, and stays a link', async (t) => {
  const { folder, path } = await keyFile(t)
  await mkdir(join(folder, 'mounted'))
  await writeKeyFile(join(folder, 'mounted', 'keys.json'), { version: 1, keys: [] })
  await symlink(join('mounted', 'keys.json'), path)
  await t.rejects(updateKeyFile(path, add('a')), {
    name: 'KeyFileError',
    message: /is a symbolic link to mounted\/keys\.json\. Set it to the file itself/,
  })
  t.ok((await lstat(path)).isSymbolicLink())
})

t.test(
  'a folder that cannot be written is reported with what to do',
  { skip: isRoot && 'root may write' },
  async (t) => {
    const { folder, path } = await keyFile(t, ['a'])
    await chmod(folder, 0o500)
    await t.rejects(updateKeyFile(path, remove('a')), {
      name: 'KeyFileError',
      message: /cannot be changed \(EACCES\): check the owner and permissions of its folder/,
    })
    // Before tap removes the folder, which it does ahead of teardowns.
    await chmod(folder, 0o700)
  },
)

t.test('a path through a file is reported with what to do', async (t) => {
  const { path } = await keyFile(t, ['a'])
  await t.rejects(updateKeyFile(join(path, 'keys.json'), add('b')), {
    name: 'KeyFileError',
    message: /cannot be (read|changed) \((ENOTDIR|EEXIST)\)/,
  })
})
