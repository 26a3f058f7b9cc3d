/** Queries DNS for the addresses of one name. c-ares sends the queries, which occupy no thread. */
import type { LookupAddress } from 'node:dns'
import { Resolver } from 'node:dns/promises'
import { setTimeout as sleep } from 'node:timers/promises'

/** The name does not exist, or has no address. */
export class NotFoundError extends Error {}

/** Whether the name exists is not known: a server did not respond in time, or failed. */
export class NotResolvedError extends Error {
  /** No server could be reached at all. */
  readonly isUnreachable: boolean
  constructor(isUnreachable = false) {
    super()
    this.isUnreachable = isUnreachable
  }
}

export interface DnsQueryOptions {
  /** `address:port`; default: those of the system. */
  servers?: string[]
}

/** Of the first query to a server; each further one takes longer. The caller's deadline ends them all. */
const QUERY_TIMEOUT_MS = 1_000
const TRIES = 4
/** How long the addresses of one family wait for the other: some servers never respond to AAAA. */
const OTHER_FAMILY_MS = 200

const NOT_FOUND = new Set(['ENOTFOUND', 'ENODATA', 'EBADNAME', 'EBADQUERY', 'ENONAME'])

/** IPv4 first: not every network has IPv6. Rejects with NotFoundError or NotResolvedError. */
export async function queryAddresses(
  name: string,
  { servers }: DnsQueryOptions,
  signal: AbortSignal,
): Promise<LookupAddress[]> {
  // A resolver of its own shares no socket and no timeout with other names, and follows changes of resolv.conf.
  const resolver = new Resolver({ timeout: QUERY_TIMEOUT_MS, tries: TRIES })
  if (servers) resolver.setServers(servers)
  const cancel = () => resolver.cancel()
  signal.addEventListener('abort', cancel)
  try {
    return await queryFamilies(resolver, name)
  } finally {
    signal.removeEventListener('abort', cancel)
    resolver.cancel()
  }
}

async function queryFamilies(resolver: Resolver, name: string): Promise<LookupAddress[]> {
  const found: LookupAddress[] = []
  const errors: NodeJS.ErrnoException[] = []
  const waiting = new AbortController()
  const query = (records: Promise<string[]>, family: number) =>
    records.then(
      (addresses) => {
        for (const address of addresses) found.push({ address, family })
      },
      (error) => void errors.push(error),
    )
  const [ipv4, ipv6] = [query(resolver.resolve4(name), 4), query(resolver.resolve6(name), 6)]
  const afterGrace = async (first: Promise<void>) => {
    await first
    if (found.length === 0) await Promise.all([ipv4, ipv6])
    else await sleep(OTHER_FAMILY_MS, undefined, { signal: waiting.signal }).catch(() => {})
  }
  await Promise.race([Promise.all([ipv4, ipv6]), afterGrace(ipv4), afterGrace(ipv6)])
  waiting.abort()
  if (found.length > 0) return found.sort((one, other) => one.family - other.family)
  if (errors.every(({ code = '' }) => NOT_FOUND.has(code))) throw new NotFoundError()
  throw new NotResolvedError(errors.every(({ code }) => code === 'ECONNREFUSED'))
}
