/**
 * Resolves the names of endpoints without getaddrinfo, which runs on a pool of four threads, where a few names whose
 * servers do not respond would block every other name. In order: /etc/hosts, DNS with the search list of
 * /etc/resolv.conf (each name over sockets of its own), and for a name that both do not know the operating system (mDNS,
 * NSS modules), one name at a time.
 */
import type { LookupAddress } from 'node:dns'
import { lookup as systemLookup } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import type { LookupFunction } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type DnsQueryOptions, NotFoundError, NotResolvedError, queryAddresses } from './dns-query.ts'
import { type Hosts, parseHosts, parseSearchList, queryNames, type SearchList } from './resolver-config.ts'
import { createSystemNames, type LookupAll } from './system-names.ts'

export interface NameResolver {
  /** For the address guard: all addresses of a name. Fails with NotFoundError or NotResolvedError within 4 s. */
  lookup: LookupFunction
}

export interface NameResolverOptions extends DnsQueryOptions {
  /** Reads a file as text. */
  read?: (path: string) => Promise<string>
  /** Asks the operating system. */
  askSystem?: LookupAll
  /** Longest lookup of a name, ms. */
  deadlineMs?: number
}

interface SystemFiles {
  hosts: Hosts
  search: SearchList
}

const DEADLINE_MS = 4_000
/** Each name in flight has sockets of its own, and a subscriber may have many names whose servers do not respond. */
const NAMES_MAX = 1_000
/** How long the files of the system are not read again. */
const FILES_TTL_MS = 5_000

export function createNameResolver(options: NameResolverOptions = {}): NameResolver {
  const { deadlineMs = DEADLINE_MS, askSystem = (name) => systemLookup(name, { all: true }) } = options
  const files = createFileCache(options.read ?? ((path) => readFile(path, 'utf8')))
  const systemNames = createSystemNames(askSystem)
  let inFlight = 0

  async function find(name: string, signal: AbortSignal): Promise<LookupAddress[]> {
    const { hosts, search } = await files()
    const listed = hosts.get(name.replace(/\.$/, '').toLowerCase())
    if (listed) return listed.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
    let failure: Error = new NotFoundError()
    for (const candidate of queryNames(name, search)) {
      try {
        return await queryAddresses(candidate, options, signal)
      } catch (error) {
        if (signal.aborted) throw error
        if (!(failure instanceof NotResolvedError)) failure = error as Error
      }
    }
    if (failure instanceof NotResolvedError && !failure.isUnreachable) throw failure
    return systemNames.find(name, signal)
  }

  async function resolve(name: string): Promise<LookupAddress[]> {
    if (inFlight >= NAMES_MAX) throw new NotResolvedError()
    const ending = new AbortController()
    inFlight++
    try {
      return await Promise.race([find(name, ending.signal), rejectAfter(deadlineMs, ending.signal)])
    } finally {
      inFlight--
      ending.abort()
    }
  }

  return {
    lookup(name, { family, all }, callback) {
      resolve(name).then(
        (found) => {
          const addresses = found.filter((one) => !family || one.family === toFamily(family))
          const [first] = addresses
          if (!first) callback(new NotFoundError(), '')
          else if (all) callback(null, addresses)
          else callback(null, first.address, first.family)
        },
        (error) => callback(error, ''),
      )
    },
  }
}

function toFamily(family: number | string): number {
  return typeof family === 'number' ? family : Number(family.replace('IPv', ''))
}

async function rejectAfter(ms: number, signal: AbortSignal): Promise<never> {
  await sleep(ms, undefined, { signal })
  throw new NotResolvedError()
}

/** The files are read again after a while, since containers and VPNs change them. A file that cannot be read is empty. */
function createFileCache(read: (path: string) => Promise<string>): () => Promise<SystemFiles> {
  let cached: { readAtMs: number; files: Promise<SystemFiles> } | undefined

  async function readFiles(): Promise<SystemFiles> {
    const [hosts, resolvConf] = await Promise.all(
      ['/etc/hosts', '/etc/resolv.conf'].map((path) => read(path).catch(() => '')),
    )
    return { hosts: parseHosts(hosts!), search: parseSearchList(resolvConf!) }
  }

  return () => {
    const nowMs = performance.now()
    if (!cached || nowMs - cached.readAtMs >= FILES_TTL_MS) cached = { readAtMs: nowMs, files: readFiles() }
    return cached.files
  }
}
