/**
 * Reads the properties of a Redis server that matter to a queue, with one INFO and, where allowed, one CONFIG
 * GET.
 */
import type { Redis } from 'ioredis'

export interface ServerInfo {
  version: string
  role: string
  loading: boolean
  uptimeS: number
  connectedClients: number
  /** `null` if the server does not report it. */
  maxClients: number | null
  usedMemoryBytes: number
  /** 0: unlimited. */
  maxMemoryBytes: number
  evictionPolicy: string
  opsPerSecond: number
  rejectedConnections: number
  replicas: number
  /** What a crash of Redis does to acknowledged jobs. */
  durability: Durability
}

export interface Durability {
  mode:
    | 'appendfsync always'
    | 'appendfsync everysec'
    | 'appendfsync no'
    | 'append-only file'
    | 'snapshots only'
  meaning: string
}

const meanings: Record<Durability['mode'], string> = {
  'appendfsync always': 'An acknowledged job survives a crash of Redis and a power loss.',
  'appendfsync everysec':
    'A crash of Redis or a power loss may lose the last second of acknowledged jobs, more on a slow disk.',
  'appendfsync no':
    'A crash of the machine may lose acknowledged jobs that the operating system had not written to disk yet.',
  'append-only file':
    'Jobs are in an append-only file. How often it is written to disk is unknown, because CONFIG GET is not allowed.',
  'snapshots only': 'A crash of Redis may lose every job since the last snapshot.',
}

/** Sends SERVER_INFO_COMMANDS commands. Rejects as Redis does. */
export async function readServerInfo(client: Redis): Promise<ServerInfo> {
  const [text, fsync] = await Promise.all([
    client.info(),
    // Managed services forbid CONFIG. INFO then tells whether there is an append-only file, but not how it is
    // written.
    client.config('GET', 'appendfsync').catch(() => []) as Promise<string[]>,
  ])
  return parseServerInfo(text, fsync[1])
}

/** INFO and CONFIG GET. */
export const SERVER_INFO_COMMANDS = 2

/**
 * `text`: the reply of INFO. `appendfsync`: the setting, `undefined` if unknown. A missing field becomes 0 or
 * 'unknown'.
 */
export function parseServerInfo(text: string, appendfsync: string | undefined): ServerInfo {
  const info: Record<string, string> = {}
  for (const line of text.split('\r\n')) {
    const colon = line.indexOf(':')
    if (colon > 0) info[line.slice(0, colon)] = line.slice(colon + 1)
  }
  const number = (name: string) => Number(info[name] ?? 0)
  const mode = durabilityMode(info['aof_enabled'] === '1', appendfsync)
  return {
    version: info['redis_version'] ?? 'unknown',
    role: info['role'] ?? 'unknown',
    loading: info['loading'] === '1',
    uptimeS: number('uptime_in_seconds'),
    connectedClients: number('connected_clients'),
    maxClients: info['maxclients'] === undefined ? null : number('maxclients'),
    usedMemoryBytes: number('used_memory'),
    maxMemoryBytes: number('maxmemory'),
    evictionPolicy: info['maxmemory_policy'] ?? 'unknown',
    opsPerSecond: number('instantaneous_ops_per_sec'),
    rejectedConnections: number('rejected_connections'),
    replicas: number('connected_slaves'),
    durability: { mode, meaning: meanings[mode] },
  }
}

function durabilityMode(appendOnly: boolean, appendfsync: string | undefined): Durability['mode'] {
  if (!appendOnly) return 'snapshots only'
  if (appendfsync === 'always' || appendfsync === 'everysec' || appendfsync === 'no')
    return `appendfsync ${appendfsync}`
  return 'append-only file'
}

/**
 * Whether BullMQ 6 and our scripts support the version. They need LPOS (6.0.6); the first supported release
 * line is 6.2.
 */
export function isSupported(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > 6 || (major === 6 && minor >= 2)
}
