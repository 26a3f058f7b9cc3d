/**
 * Decides which URLs a webhook may be sent to. A subscriber chooses where this process connects, so every
 * address outside the public internet is refused (SSRF) unless WEBHOOK_ALLOW_CIDRS lists it. Host names are
 * checked inside the connection's own lookup: the addresses that were checked are the ones connected to, so a
 * second DNS response cannot bypass the check.
 */
import type { LookupAddress, LookupOptions } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'
import { NotResolvedError } from './dns-query.ts'

export interface AddressGuard {
  /** Parses a URL. Throws {@link ForbiddenUrlError} when the URL alone shows that it must not be called. */
  parse(url: string): URL
  /**
   * Rejects with {@link ForbiddenUrlError} when the host has no address, or one that is not allowed, and with
   * {@link UnresolvedNameError} when its name could not be resolved now.
   */
  resolve(url: URL): Promise<void>
  /**
   * For `net.connect`: fails when one of the addresses is not allowed. Node skips it for hosts that are IP
   * addresses.
   */
  lookup: LookupFunction
  /** Whether an IP address may be connected to; false for any text that is not an IP address. */
  mayReach(address: string): boolean
}

/**
 * Why a URL must not be called, as a sentence for the client. It is the same for a name without an address and for one
 * whose address is not allowed: the difference would tell a subscriber which internal names exist.
 */
export class ForbiddenUrlError extends Error {
  constructor(sentence: string) {
    super(sentence)
    this.name = 'ForbiddenUrlError'
  }
}

/** A name that could not be resolved now, as a sentence for the client. A delivery to it has not started. */
export class UnresolvedNameError extends Error {
  constructor(name: string) {
    super(`The name ${name} was not resolved in time.`)
    this.name = 'UnresolvedNameError'
  }
}

export interface AddressGuardOptions {
  /** Networks besides the public internet. */
  allowCidrs: string[]
  lookup: LookupFunction
  /** Why a name was refused, for the log of the service. Not for clients. */
  onRefused?: (name: string, reason: string) => void
}

type Address = ipaddr.IPv4 | ipaddr.IPv6
/** An address and a prefix length in bits. */
type Network = [Address, number]

/** Throws when `allowCidrs` contains an invalid CIDR. */
export function createAddressGuard({
  allowCidrs,
  lookup,
  onRefused = () => {},
}: AddressGuardOptions): AddressGuard {
  const allowed = allowCidrs.map(parseCidr)
  const lookups = new Map<string, Promise<LookupAddress[]>>()

  function mayReach(text: string): boolean {
    const address = parseAddress(text)
    return (
      address !== undefined && (allowed.some((network) => isWithin(address, network)) || isPublic(address))
    )
  }

  /** Concurrent lookups of one name share a request. */
  function sharedLookup(name: string, options: LookupOptions): Promise<LookupAddress[]> {
    const key = `${name} ${options.family ?? 0} ${options.hints ?? 0}`
    const pending = lookups.get(key)
    if (pending) return pending
    const addresses = lookupAll(lookup, name, options).finally(() => lookups.delete(key))
    lookups.set(key, addresses)
    return addresses
  }

  /**
   * One forbidden address is enough to refuse the name: the network stack chooses which of them it connects
   * to.
   */
  async function allowedAddresses(name: string, options: LookupOptions): Promise<LookupAddress[]> {
    const addresses = await sharedLookup(name, options).catch((error: NodeJS.ErrnoException) => {
      if (error instanceof NotResolvedError) throw new UnresolvedNameError(name)
      throw forbiddenName(name, 'has no address')
    })
    const forbidden = addresses.find(({ address }) => !mayReach(address))
    if (!forbidden && addresses.length > 0) return addresses
    throw forbiddenName(name, forbidden ? `resolves to ${forbidden.address}` : 'has no address')
  }

  function forbiddenName(name: string, reason: string): ForbiddenUrlError {
    onRefused(name, reason)
    return new ForbiddenUrlError(`The name ${name} has no address that webhooks may be sent to.`)
  }

  return {
    mayReach,
    parse(text) {
      const url = parseEndpointUrl(text)
      const host = hostOf(url)
      if (isIP(host) !== 0 && !mayReach(host)) throw forbiddenAddress(host)
      return url
    },
    async resolve(url) {
      const host = hostOf(url)
      if (isIP(host) === 0) await allowedAddresses(host, {})
      else if (!mayReach(host)) throw forbiddenAddress(host)
    },
    lookup(name, options, callback) {
      allowedAddresses(name, options).then(
        (addresses) => {
          const { address, family } = addresses[0]!
          if (options.all) callback(null, addresses)
          else callback(null, address, family)
        },
        (error) => callback(error, ''),
      )
    },
  }
}

function lookupAll(lookup: LookupFunction, name: string, options: LookupOptions): Promise<LookupAddress[]> {
  return new Promise((resolve, reject) => {
    lookup(name, { ...options, all: true }, (error, addresses) => {
      if (error) reject(error)
      else resolve(addresses as LookupAddress[])
    })
  })
}

/** Throws {@link ForbiddenUrlError} for a URL of a form that is never called, whatever its host. */
export function parseEndpointUrl(text: string): URL {
  if (!URL.canParse(text)) {
    throw new ForbiddenUrlError(
      'The URL is not valid. Send an absolute URL such as https://example.com/hook.',
    )
  }
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new ForbiddenUrlError('The URL must start with https:// or http://.')
  }
  if (url.username !== '' || url.password !== '') {
    throw new ForbiddenUrlError('The URL must not contain a user name or password. Send a header instead.')
  }
  // `url.hash` is empty for a trailing "#", so the whole URL is searched.
  if (url.href.includes('#')) throw new ForbiddenUrlError('The URL must not have a fragment.')
  if (url.hostname.replace(/\.$/, '') === '') throw new ForbiddenUrlError('The URL must have a host.')
  return url
}

function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, '')
}

function forbiddenAddress(host: string): ForbiddenUrlError {
  return new ForbiddenUrlError(`The address ${host} is not allowed.`)
}

/**
 * `undefined` for text that is not an IP address. The parser of ipaddr.js accepts more than addresses (`10`
 * as 0.0.0.10) and reads `::1.2.3.4` as `::ffff:1.2.3.4`, a different address. The text is therefore checked
 * first and normalised by `URL`.
 */
function parseAddress(text: string): Address | undefined {
  const withoutZone = text.replace(/%.*$/, '')
  switch (isIP(withoutZone)) {
    case 4:
      return ipaddr.parse(withoutZone)
    case 6: {
      const address = ipaddr.IPv6.parse(hostOf(new URL(`http://[${withoutZone}]`)))
      // The operating system connects to IPv4-mapped addresses over IPv4.
      return address.isIPv4MappedAddress() ? address.toIPv4Address() : address
    }
    default:
      return undefined
  }
}

function parseCidr(cidr: string): Network {
  const [base = '', bits = '', ...rest] = cidr.split('/')
  const address = parseAddress(base)
  const isMapped = address?.kind() === 'ipv4' && base.includes(':')
  const maxBits = address?.kind() === 'ipv4' ? 32 : 128
  if (!address || isMapped || rest.length > 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > maxBits) {
    throw new Error(`"${cidr}" is not a CIDR, such as 10.0.0.0/8 or fd00::/8`)
  }
  return [address, Number(bits)]
}

function isWithin(address: Address, [network, bits]: Network): boolean {
  return address.kind() === network.kind() && address.match(network, bits)
}

/**
 * A public address by its number, but inside an Azure virtual machine it serves the machine's configuration
 * and secrets.
 */
const AZURE_WIRE_SERVER = parseCidr('168.63.129.16/32')
/** RFC 6052: the last 32 bits are the IPv4 address that is connected to. */
const NAT64 = parseCidr('64:ff9b::/96')
/**
 * The IPv6 range that IANA assigns to the internet. ipaddr.js also reports the unassigned rest as unicast.
 */
const GLOBAL_UNICAST = parseCidr('2000::/3')

function isPublic(address: Address): boolean {
  if (address instanceof ipaddr.IPv4)
    return address.range() === 'unicast' && !isWithin(address, AZURE_WIRE_SERVER)
  if (isWithin(address, NAT64)) return isPublic(new ipaddr.IPv4(address.toByteArray().slice(-4)))
  return address.range() === 'unicast' && isWithin(address, GLOBAL_UNICAST) && !isIsatap(address)
}

/** RFC 5214: under any prefix, a tunnel to the IPv4 address in the last 32 bits. */
function isIsatap({ parts }: ipaddr.IPv6): boolean {
  return (parts[4]! & ~0x0200) === 0 && parts[5] === 0x5efe
}
