/** What the files of the system say about names: /etc/hosts, and the search list of /etc/resolv.conf. Pure. */
import { isIP } from 'node:net'

/** Addresses by name in lower case. */
export type Hosts = ReadonlyMap<string, readonly string[]>

export interface SearchList {
  /** Domains that are appended to a name, in order. */
  domains: readonly string[]
  /** A name with fewer dots is tried in the domains before it is tried as it is. */
  ndots: number
}

/** As in glibc. */
const MAX_DOMAINS = 6
const MAX_NDOTS = 15

export function parseHosts(text: string): Hosts {
  const hosts = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/)
    if (isIP(address) === 0) continue
    for (const name of names.map((text) => text.toLowerCase())) {
      const known = hosts.get(name)
      if (!known) hosts.set(name, [address])
      else if (!known.includes(address)) known.push(address)
    }
  }
  return hosts
}

/** resolv.conf(5): the last `search` or `domain` counts. Everything but the search list is left to c-ares. */
export function parseSearchList(text: string): SearchList {
  let domains: string[] = []
  let ndots = 1
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line
      .replace(/[#;].*/, '')
      .trim()
      .split(/\s+/)
    if (keyword === 'search' || keyword === 'domain') domains = values.slice(0, MAX_DOMAINS)
    if (keyword !== 'options') continue
    for (const option of values) {
      const [, dots] = /^ndots:(\d{1,3})$/.exec(option) ?? []
      if (dots !== undefined) ndots = Math.min(Number(dots), MAX_NDOTS)
    }
  }
  return { domains: domains.map((domain) => domain.replace(/\.$/, '')).filter(Boolean), ndots }
}

/** The names to query, in order, as getaddrinfo does. A name that ends with a dot is not searched. */
export function queryNames(name: string, { domains, ndots }: SearchList): string[] {
  if (name.endsWith('.')) return [name.slice(0, -1)]
  const searched = domains.map((domain) => `${name}.${domain}`)
  const dots = name.split('.').length - 1
  return dots >= ndots ? [name, ...searched] : [...searched, name]
}
