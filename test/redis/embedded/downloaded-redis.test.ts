/** Which redis-server in the cache folder is executed: only one that this program fetched and that no other user could change. */
import {
  access,
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  rm,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import t, { type Test } from 'tap'
import {
  inspectDownload,
  installDownload,
  prepareCacheDir,
} from '../../../src/redis/embedded/downloaded-redis.ts'
import { findRedisBinary } from '../../../src/redis/embedded/redis-binary.ts'

const isRoot = process.getuid?.() === 0

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'sluice-cache-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

/** A tree as it is unpacked, whose server leaves a mark when it is executed. */
async function unpack(parent: string): Promise<{ tree: string; mark: string }> {
  const tree = join(parent, 'unpacked')
  const mark = join(parent, 'executed')
  await mkdir(join(tree, 'usr/bin'), { recursive: true })
  await mkdir(join(tree, 'usr/lib/x86_64-linux-gnu'), { recursive: true })
  const script = `#!/bin/sh\n: > '${mark}'\necho 'Redis server v=9.9.9'\n`
  await writeFile(join(tree, 'usr/bin/redis-check-rdb'), script, { mode: 0o755 })
  await symlink('redis-check-rdb', join(tree, 'usr/bin/redis-server'))
  await writeFile(join(tree, 'usr/lib/x86_64-linux-gnu/liblzf.so.1'), 'library')
  return { tree, mark }
}

async function installed(t: Test) {
  const parent = await folder(t)
  const cacheDir = join(parent, '.redis')
  await prepareCacheDir(cacheDir)
  const { tree, mark } = await unpack(parent)
  await installDownload(cacheDir, tree)
  return { parent, cacheDir, mark, root: join(cacheDir, 'root') }
}

const wasExecuted = (mark: string) =>
  access(mark).then(
    () => true,
    () => false,
  )

t.test('what was fetched is run, also through a link to its folder', async (t) => {
  const { parent, cacheDir, mark, root } = await installed(t)
  t.same((await readdir(cacheDir)).sort(), ['manifest.json', 'root'])
  t.same(await inspectDownload(cacheDir), { kind: 'verified', root })
  const link = join(parent, 'link')
  await symlink(cacheDir, link)
  t.same(await inspectDownload(link), { kind: 'verified', root })
  const found = await findRedisBinary({ cacheDir: link, path: '', onFetch: () => t.fail('a download') })
  t.match(found, { path: join(root, 'usr/bin/redis-server'), version: '9.9.9' })
  t.ok(await wasExecuted(mark))
})

t.test('a tree that was changed in any way is not verified', async (t) => {
  const library = 'usr/lib/x86_64-linux-gnu/liblzf.so.1'
  const changes: [what: string, change: (cacheDir: string) => Promise<unknown>][] = [
    ['another library', (dir) => writeFile(join(dir, 'root', library), 'changed')],
    ['one more library', (dir) => writeFile(join(dir, 'root', `${library}.2`), 'new')],
    ['a missing library', (dir) => unlink(join(dir, 'root', library))],
    [
      'a link to another server',
      async (dir) => {
        await unlink(join(dir, 'root/usr/bin/redis-server'))
        await symlink('/bin/sh', join(dir, 'root/usr/bin/redis-server'))
      },
    ],
    ['no manifest', (dir) => unlink(join(dir, 'manifest.json'))],
    ['a manifest that is no JSON', (dir) => writeFile(join(dir, 'manifest.json'), '{')],
    ['a manifest that others may write', (dir) => chmod(join(dir, 'manifest.json'), 0o666)],
    ['a server that others may write', (dir) => chmod(join(dir, 'root/usr/bin/redis-check-rdb'), 0o777)],
    ['a folder in it that the group may write', (dir) => chmod(join(dir, 'root/usr/bin'), 0o775)],
    ['a cache folder that the group may write', (dir) => chmod(dir, 0o775)],
  ]
  for (const [what, change] of changes) {
    const { cacheDir } = await installed(t)
    await change(cacheDir)
    t.match(await inspectDownload(cacheDir), { kind: 'unverified', reason: String }, what)
  }
  t.same(await inspectDownload(join(await folder(t), 'none')), { kind: 'missing' })
})

t.test('what another user could replace is refused', { skip: !isRoot && 'needs root' }, async (t) => {
  const { cacheDir } = await installed(t)
  await chown(cacheDir, 65534, 65534)
  t.match(await inspectDownload(cacheDir), { kind: 'unsafe', reason: /belongs to another user/ })
  await t.rejects(
    findRedisBinary({ cacheDir, path: '', onFetch: () => {} }),
    /is not run: .* belongs to another user/,
  )
})

t.test('a cache folder below one that every user may write is refused', async (t) => {
  const { parent, cacheDir, mark } = await installed(t)
  await chmod(parent, 0o777)
  t.match(await inspectDownload(cacheDir), { kind: 'unsafe', reason: `every user may write ${parent}` })
  await t.rejects(
    findRedisBinary({ cacheDir, path: '', onFetch: () => {} }),
    /is not run: every user may write/,
  )
  await chmod(parent, 0o1777)
  t.match(await inspectDownload(cacheDir), { kind: 'verified' }, 'sticky, as /tmp')
  t.notOk(await wasExecuted(mark))
})

t.test('a server that lies in the working directory or the cache folder is not executed', async (t) => {
  const parent = await folder(t)
  const cacheDir = join(parent, '.redis')
  const { tree, mark } = await unpack(parent)
  await mkdir(cacheDir)
  await symlink(tree, join(cacheDir, 'root'))
  const { PATH } = process.env
  // So that no download is tried.
  process.env['PATH'] = ''
  t.teardown(() => {
    process.env['PATH'] = PATH
  })
  const path = `:${relative(process.cwd(), join(tree, 'usr/bin'))}:.`
  await t.rejects(findRedisBinary({ cacheDir, path, onFetch: () => {} }), {
    message:
      /^The redis-server in .* is not run: .* has no manifest\. No redis-server was found on this machine/,
  })
  t.notOk(await wasExecuted(mark))
})
