/**
 * Generates endpoint URLs. `staysHere` filters them again: the host is this machine, an address outside the internet, or
 * one that the URL parser rejects, and no name has to be resolved.
 */
import { BlockList, isIP } from 'node:net'
import * as fc from 'fast-check'
import { anyText, type Text } from './hostile-values.ts'

/** Placeholder for the port of the test's endpoint, which is not known when requests are generated. */
export const ENDPOINT_PORT = 47110
/** No process listens there, and no system assigns it to one that asks for any free port. */
const DEAD_PORT = 1

/** Allowed URLs. */
export const allowed = [
  ...['http://127.0.0.1:47110/hook', 'http://127.0.0.1:47110', 'http://127.0.0.1:47110/a?b=c&d[]=%20', 'HTTP://LOCALHOST:47110/'],
  ...['http://127.1:47110/x', 'http://2130706433:47110/', 'http://0x7f000001:47110/', 'http://0177.0.0.1:47110/', 'http:127.0.0.1:47110'],
  ...['http:\\\\127.0.0.1:47110\\x', ' http://127.0.0.1:47110/ ', 'http://１２７.０.０.１:47110/', 'http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:47110/'],
  ...['http://127.0.0.1:47110/é 😀"<>`{}|^', 'http://127.0.0.1:47110/%zz%00?%', 'http://127.0.0.1:47110/a/../../b/%2e%2e', 'http://127.0.0.1.:47110/'],
  ...['http://127.0.0.1:47110/\ud800', 'http://127.0.0.1:47110/\r\nX-Injected: 1', `http://127.0.0.1:47110/${'x'.repeat(2_025)}`],
  ...['http://127.0.0.1:1/', 'http://localhost:1/', 'https://127.0.0.1:1/', 'https://localhost:1', 'https://127.0.0.1:47110/', 'http://127.9.9.9:1/'],
] // biome-ignore format: a list to read, not a column

/** Forbidden addresses. */
const forbidden = [
  ...['http://169.254.169.254/latest/meta-data/', 'http://[fd00:ec2::254]/', 'http://2852039166/', 'http://0xa9fea9fe/', 'http://10.0.0.1/'],
  ...['http://10.0.0.1:47110/', 'https://192.168.1.1/', 'http://172.16.0.1:80/', 'http://100.64.0.1/', 'http://0.0.0.0:47110/', 'http://0:47110/'],
  ...['http://[::1]:47110/', 'http://[::]:47110/', 'http://[::ffff:10.0.0.1]/', 'http://[::ffff:a9fe:a9fe]/', 'http://[::127.0.0.1]:47110/'],
  ...['http://[fe80::1]/', 'http://[fc00::1]/', 'http://[ff02::1]/', 'http://[64:ff9b::10.0.0.1]/', 'http://[2001:db8::1]/', 'http://[2002:7f00:1::]/'],
  ...['http://224.0.0.1/', 'http://255.255.255.255/', 'http://240.0.0.1/', 'http://192.0.2.1/', 'http://198.18.0.1/', 'http://127.0.0.1:47110@10.0.0.1/'],
] // biome-ignore format: a list to read, not a column

/** Rejected whatever their address is. */
const malformed = [
  ...['http://user:pw@127.0.0.1:47110/', 'http://user@127.0.0.1:47110/', 'http://10.0.0.1@127.0.0.1:47110/', 'http://127.0.0.1:47110/#x', 'http://127.0.0.1:47110/#'],
  ...['ftp://127.0.0.1:47110/', 'file:///etc/passwd', 'file://127.0.0.1/etc/passwd', 'ws://127.0.0.1:47110/', 'gopher://127.0.0.1:47110/_x', 'unix:/tmp/x'],
  ...['javascript:alert(1)', 'data:text/plain,x', 'redis://127.0.0.1:1/', 'blob:http://127.0.0.1:47110/x', 'http+unix://127.0.0.1/', 'about:blank'],
  ...['http://', 'http:///', 'http://:47110/', 'http://[', 'http://[::1', 'http://[::g]/', 'http://127.0.0.1:99999/', 'http://127.0.0.1:x/', 'http://999.1.1.1/'],
  ...['http://127.0.0.1%00.x/', 'http://a b/', 'http://xn--/', 'http://xn--a/', 'http://\u00ad/', 'http://%ff/', 'http://1.2.3.4.5/', '//127.0.0.1:47110/'],
  ...['127.0.0.1:47110', '/hook', '?', '', ' ', 'http', 'https:', 'localhost:47110'],
] // biome-ignore format: a list to read, not a column

export const refused = [...forbidden, ...malformed]

const hostile: Text = fc
  .oneof(
    anyText,
    anyText.map((text) => `http://127.0.0.1:${ENDPOINT_PORT}/${text}`),
    anyText.map((text) => `http://127.0.0.1:${ENDPOINT_PORT}?${text}`),
    anyText.map((text) => `http://127.0.0.1:${DEAD_PORT}${text}`),
    anyText.map((text) => `http://${text}/`),
    anyText.map((text) => `http://${text}@127.0.0.1:${ENDPOINT_PORT}/`),
    anyText.map((text) => `${text}://127.0.0.1:${ENDPOINT_PORT}/`),
    fc.ipV4Extended().map((host) => `http://${host}/`),
    fc.ipV6().map((host) => `https://[${host}]/`),
  )
  .filter(staysHere)

const json = (text: Text) => text.map((one) => JSON.stringify(one))

export const urls = {
  fitting: json(
    fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom(...allowed) },
      { weight: 1, arbitrary: fc.constantFrom(...forbidden) },
      { weight: 1, arbitrary: fc.constantFrom(...malformed) },
    ),
  ),
  nearly: json(fc.oneof(fc.constantFrom(...forbidden), fc.constantFrom(...malformed), hostile, hostile)),
}

/** Address ranges that do not belong to the internet, except this machine's. */
const elsewhere = new BlockList()
for (const cidr of [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '169.254.0.0/16', '172.16.0.0/12', '192.0.2.0/24', '192.168.0.0/16'],
  ...['198.18.0.0/15', '224.0.0.0/3', '::/96', '64:ff9b::/96', '2001:db8::/32', '2002:7f00::/24', 'fc00::/7', 'fe80::/10', 'ff00::/8'],
]) {
  const [base = '', bits] = cidr.split('/')
  elsewhere.addSubnet(base, Number(bits), isIP(base) === 4 ? 'ipv4' : 'ipv6')
} // biome-ignore format: a list to read, not a column

/** Whether the host is this machine, by an address that a subscription may use here. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(?:::ffff:7f([0-9a-f]{2}):[0-9a-f]{1,4})?\]$/, '127.0.0.1').toLowerCase()
  return bare === 'localhost' || (isIP(bare) === 4 && bare.startsWith('127.'))
}

/**
 * Whether a URL cannot reach another machine, even if the service accepts what it must reject: such addresses are not
 * routable. On this machine it may reach the test's endpoint or a dead port.
 */
export function staysHere(text: string): boolean {
  if (!URL.canParse(text)) return true
  const { protocol, hostname, port } = new URL(text)
  if (hostname === '') return true
  if (isLoopback(hostname)) {
    if (!/^https?:$/.test(protocol)) return true
    return port === `${DEAD_PORT}` || (port === `${ENDPOINT_PORT}` && text.includes(`:${ENDPOINT_PORT}`))
  }
  const host = hostname.replace(/^\[|\]$/g, '')
  return isIP(host) !== 0 && elsewhere.check(host, isIP(host) === 4 ? 'ipv4' : 'ipv6')
}
