/**
 * Keeps DATA_DIR to its owner. A new folder gets mode 0700. An existing one is tightened if it holds nothing but what this
 * service writes; otherwise only those files are, because others may need the folder.
 */
import { chmod, mkdir, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** What the service and its redis-server write, also while they replace a file. */
const OWN_NAMES =
  /^(redis\.(lock|log|sock)|secret(\.[0-9a-f]+)?|keys\.json(\.\w+)*|appendonlydir|.*\.(aof|rdb|manifest))$/
const OTHERS = 0o077
const STICKY = 0o1000

/** `warn` is called with a sentence for whatever other users may still open. Rejects if the folder cannot be created. */
export async function makePrivate(folder: string, warn: (sentence: string) => void): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const { mode, uid } = await stat(folder)
  const names = await readdir(folder)
  const isOwn =
    uid === process.getuid?.() && (mode & STICKY) === 0 && names.every((name) => OWN_NAMES.test(name))
  // In a folder of mode 0700 the modes of the files do not matter.
  if ((mode & OTHERS) === 0 || (isOwn && (await tighten(folder, 0o700)))) return
  // Created here, since redis-server would give it the mode 0755.
  await mkdir(join(folder, 'appendonlydir'), { recursive: true, mode: 0o700 })
  const open: string[] = []
  for (const name of new Set([...names.filter((found) => OWN_NAMES.test(found)), 'appendonlydir'])) {
    // The operator decides who may read the API keys, which are hashes.
    if (name.startsWith('keys.json')) continue
    const path = join(folder, name)
    const found = await stat(path).catch(() => undefined)
    if (!found || (found.mode & OTHERS) === 0) continue
    if (!(await tighten(path, found.isDirectory() ? 0o700 : found.mode & 0o700))) open.push(path)
  }
  warn(
    open.length > 0
      ? `Other users may read ${open.join(', ')}: run chmod -R go-rwx ${folder} as its owner`
      : `Other users may list ${folder}: use a DATA_DIR of its own, or run chmod 700 ${folder}`,
  )
}

/** Returns false if the mode cannot be changed, for example because another user owns the file. */
function tighten(path: string, mode: number): Promise<boolean> {
  return chmod(path, mode).then(
    () => true,
    () => false,
  )
}
