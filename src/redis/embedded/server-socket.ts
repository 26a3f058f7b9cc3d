/** Finds the unix socket of the embedded redis-server, and checks whether a server replies on it. */
import { createHash } from 'node:crypto'
import { mkdir, stat } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Longest path of a unix socket, in bytes, on macOS (104 with its final NUL) and Linux (108). */
const MAX_SOCKET_PATH = 103
const PING_TIMEOUT_MS = 1_000

/** In the data folder, or in a private temporary folder if that path is too long for a socket. */
export async function socketPath(dataDir: string): Promise<string> {
  const path = join(dataDir, 'redis.sock')
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return path
  const folder = join(tmpdir(), `sluice-${createHash('sha1').update(dataDir).digest('hex').slice(0, 16)}`)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  // The name is predictable, so another user may have created the folder first.
  const { uid, mode } = await stat(folder)
  if (uid !== process.getuid?.() || (mode & 0o077) !== 0)
    throw new Error(`${folder} is not private to this user: remove it, or use a DATA_DIR with a shorter path`)
  return join(folder, 'redis.sock')
}

/** Whether the server is ready. While it loads its data it listens, but is not ready. */
export async function isServerReady(socket: string): Promise<boolean> {
  return (await ping(socket)).startsWith('+PONG')
}

export async function isServerListening(socket: string): Promise<boolean> {
  return (await ping(socket)) !== ''
}

/** Resolves with the reply to PING, or with '' if there is none. */
function ping(socket: string): Promise<string> {
  return new Promise((resolve) => {
    const connection = createConnection(socket)
    const finish = (reply: string) => {
      connection.destroy()
      resolve(reply)
    }
    connection.once('connect', () => connection.write('PING\r\n'))
    connection.once('data', (data) => finish(data.toString()))
    connection.once('error', () => finish(''))
    connection.setTimeout(PING_TIMEOUT_MS, () => finish(''))
  })
}
