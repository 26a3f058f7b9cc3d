/**
 * Which URLs a webhook may be sent to. Whoever may subscribe chooses where this process connects to, so all that is not
 * the public internet is refused (SSRF), unless WEBHOOK_ALLOW_CIDRS names it. A name is judged by what it leads to, in the
 * connection's own lookup: what was judged is what is connected to, and there is no second answer to be fooled by.
 */
import { type LookupAddress, type LookupOptions, lookup as systemLookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'

export interface AddressGuard {
  /** Throws {@link ForbiddenUrlError} for what may not be called, as far as the URL alone tells it. */
  parse(url: string): URL
  /** Rejects with {@link ForbiddenUrlError} when one of the host's addresses is not allowed, or there is none. */
  resolve(url: URL): Promise<void>
  /** For `net.connect`: fails when one of the addresses is not allowed. Not called for hosts that are addresses. */
  lookup: LookupFunction
  mayReach(address: string): boolean
}

/** Why a URL may not be called, in a sentence for the client. What a name leads to stays unsaid: it may be internal. */
export class ForbiddenUrlError extends Error {
  constructor(sentence: string) {
    super(sentence)
    this.name = 'ForbiddenUrlError'
  }
}

type Address = ipaddr.IPv4 | ipaddr.IPv6
type Network = [Address, number]

/** Throws for a CIDR that cannot be read. */
export function createAddressGuard(
  allowCidrs: string[],
  lookup: LookupFunction = systemLookup,
): AddressGuard {
  const allowed = allowCidrs.map(networkOf)
  const lookups = new Map<string, Promise<LookupAddress[]>>()

  function mayReach(text: string): boolean {
    const address = addressOf(text)
    return (
      address !== undefined && (allowed.some((network) => isWithin(address, network)) || isPublic(address))
    )
  }

  /** Those who ask for a name at the same time share the answer: a name that hangs holds one thread, not one for each. */
  function look(name: string, options: LookupOptions): Promise<LookupAddress[]> {
    const key = `${name} ${options.family ?? 0} ${options.hints ?? 0}`
    const known = lookups.get(key)
    if (known) return known
    const answer = ask(name, options).finally(() => lookups.delete(key))
    lookups.set(key, answer)
    return answer
  }

  function ask(name: string, options: LookupOptions): Promise<LookupAddress[]> {
    return new Promise((resolve, reject) => {
      lookup(name, { ...options, all: true }, (error, addresses) => {
        if (error) reject(error)
        else resolve(addresses as LookupAddress[])
      })
    })
  }

  /** One address that is not allowed is enough: which of them is connected to is up to the network. */
  async function judgedAddresses(name: string, options: LookupOptions): Promise<LookupAddress[]> {
    const addresses = await look(name, options)
    if (addresses.length === 0) throw unresolved(name)
    if (addresses.every(({ address }) => mayReach(address))) return addresses
    throw new ForbiddenUrlError(`The name ${name} leads to an address that is not allowed.`)
  }

  return {
    mayReach,
    parse(text) {
      const url = readUrl(text)
      const host = hostOf(url)
      if (isIP(host) !== 0 && !mayReach(host)) throw forbidden(host)
      return url
    },
    async resolve(url) {
      const host = hostOf(url)
      if (isIP(host) === 0) {
        await judgedAddresses(host, {}).catch((error) => {
          throw error instanceof ForbiddenUrlError ? error : unresolved(host)
        })
      } else if (!mayReach(host)) throw forbidden(host)
    },
    lookup(name, options, callback) {
      judgedAddresses(name, options).then(
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

function readUrl(text: string): URL {
  if (!URL.canParse(text)) {
    throw new ForbiddenUrlError('The URL cannot be read. Send one such as https://example.com/hook.')
  }
  const url = new URL(text)
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new ForbiddenUrlError('The URL must begin with https:// or http://.')
  }
  if (url.username !== '' || url.password !== '') {
    throw new ForbiddenUrlError('The URL must not hold a user or a password. Send a header instead.')
  }
  // `hash` is empty for a "#" that nothing follows.
  if (url.href.includes('#')) throw new ForbiddenUrlError('The URL must not have a fragment.')
  if (url.hostname.replace(/\.$/, '') === '') throw new ForbiddenUrlError('The URL must have a host.')
  return url
}

const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[|\]$/g, '')

const forbidden = (host: string) => new ForbiddenUrlError(`The address ${host} is not allowed.`)
const unresolved = (name: string) => new ForbiddenUrlError(`The name ${name} cannot be resolved.`)

/**
 * `undefined` for what is no address. The parser of ipaddr.js takes more than that (`10` for 0.0.0.10), and `::1.2.3.4` for
 * `::ffff:1.2.3.4`, which is another address: so the text is checked first, and rewritten in hexadecimal.
 */
function addressOf(text: string): Address | undefined {
  const bare = text.replace(/%.*$/, '')
  switch (isIP(bare)) {
    case 4:
      return ipaddr.parse(bare)
    case 6: {
      const address = ipaddr.IPv6.parse(hostOf(new URL(`http://[${bare}]`)))
      // The system connects to these over IPv4.
      return address.isIPv4MappedAddress() ? address.toIPv4Address() : address
    }
    default:
      return undefined
  }
}

function networkOf(cidr: string): Network {
  const [base = '', bits = '', ...rest] = cidr.split('/')
  const address = addressOf(base)
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

/** Ordinary by its number, but it answers from inside every virtual machine of Azure, and tells it secrets. */
const azureWireServer = networkOf('168.63.129.16/32')
/** RFC 6052: the last 32 bits are the IPv4 address that it leads to. */
const nat64 = networkOf('64:ff9b::/96')
/** All that IANA has given out as IPv6 addresses of the internet; ipaddr.js calls the unassigned rest unicast as well. */
const globalUnicast = networkOf('2000::/3')

function isPublic(address: Address): boolean {
  if (address instanceof ipaddr.IPv4)
    return address.range() === 'unicast' && !isWithin(address, azureWireServer)
  if (isWithin(address, nat64)) return isPublic(new ipaddr.IPv4(address.toByteArray().slice(-4)))
  return address.range() === 'unicast' && isWithin(address, globalUnicast) && !isIsatap(address)
}

/** RFC 5214: a tunnel to the IPv4 address in the last 32 bits, under anybody's prefix. */
function isIsatap({ parts }: ipaddr.IPv6): boolean {
  return (parts[4]! & ~0x0200) === 0 && parts[5] === 0x5efe
}
