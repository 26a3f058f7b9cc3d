/** Bytes that are not HTTP, and HTTP that servers interpret differently (request smuggling). */
import * as fc from 'fast-check'
import type { RawRequest } from './raw-socket.ts'

const JOB = '{"queue":"raw","name":"n"}'

export const post = (headers: string, body: string) =>
  `POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${headers}\r\n${body}`
const get = (headers: string, path = '/health/live') =>
  `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`
const LENGTH = `Content-Length: ${JOB.length}\r\n`
const chunked = (body: string, line = 'Transfer-Encoding: chunked\r\n') => post(line, body)
const CHUNKS = `${JOB.length.toString(16)}\r\n${JOB}\r\n0\r\n\r\n`
/** A request in the body of another one, which must never be processed. */
const SMUGGLED = get('', '/smuggled')

export interface Malformed {
  bytes: string | Buffer
  /** The allowed statuses of each response, in order; `0`: none. */
  statuses: number[][]
}

const binary = (...parts: (string | number[])[]) =>
  Buffer.concat(
    parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : Buffer.from(part))),
  )
const withBytes = (...inName: number[]) => {
  const body = binary('{"queue":"raw","name":"', inName, '"}')
  return Buffer.concat([Buffer.from(post(`Content-Length: ${body.length}\r\n`, '')), body])
}

/** By what is wrong with them. */
export const malformed: Record<string, Malformed> = {
  'two lengths that differ': { bytes: post(`${LENGTH}Content-Length: 5\r\n`, JOB) + SMUGGLED, statuses: [[400]] },
  'the same length twice': { bytes: post(LENGTH + LENGTH, JOB), statuses: [[400]] },
  'a list of lengths': { bytes: post(`Content-Length: ${JOB.length}, ${JOB.length}\r\n`, JOB), statuses: [[400]] },
  'a length with a sign': { bytes: post('Content-Length: +26\r\n', JOB), statuses: [[400]] },
  'a negative length': { bytes: post('Content-Length: -1\r\n', JOB), statuses: [[400]] },
  'a length in hex': { bytes: post('Content-Length: 0x1a\r\n', JOB), statuses: [[400]] },
  'a length with a fraction': { bytes: post('Content-Length: 26.0\r\n', JOB), statuses: [[400]] },
  'a length beyond 64 bits': { bytes: post(`Content-Length: ${'9'.repeat(40)}\r\n`, JOB), statuses: [[400]] },
  'a length of 4 GiB': { bytes: post('Content-Length: 4294967296\r\n', JOB), statuses: [[413]] },
  'an empty length': { bytes: post('Content-Length: \r\n', JOB), statuses: [[400]] },
  'a length and chunks': { bytes: post(`${LENGTH}Transfer-Encoding: chunked\r\n`, CHUNKS) + SMUGGLED, statuses: [[400]] },
  'chunks and a length': { bytes: post(`Transfer-Encoding: chunked\r\n${LENGTH}`, CHUNKS) + SMUGGLED, statuses: [[400]] },
  'an unknown transfer encoding': { bytes: chunked(CHUNKS + SMUGGLED, 'Transfer-Encoding: xchunked\r\n'), statuses: [[400]] },
  'chunked and then another': { bytes: chunked(CHUNKS + SMUGGLED, 'Transfer-Encoding: chunked, x\r\n'), statuses: [[400]] },
  'chunked twice': { bytes: chunked(CHUNKS + SMUGGLED, 'Transfer-Encoding: chunked, chunked\r\n'), statuses: [[400]] },
  'a blank before the colon': { bytes: chunked(CHUNKS + SMUGGLED, 'Transfer-Encoding : chunked\r\n'), statuses: [[400]] },
  'a chunk with a size that is not a number': { bytes: chunked(`zz\r\n${JOB}\r\n0\r\n\r\n`), statuses: [[400]] },
  'a chunk of a negative size': { bytes: chunked(`-1a\r\n${JOB}\r\n0\r\n\r\n`), statuses: [[400]] },
  'a chunk of 64 bits and more': { bytes: chunked(`fffffffffffffffff\r\n${JOB}`), statuses: [[400]] },
  'a chunk longer than its size': { bytes: chunked(`5\r\n${JOB}\r\n0\r\n\r\n`), statuses: [[400]] },
  'chunks that end in LF': { bytes: chunked(CHUNKS.replaceAll('\r\n', '\n')), statuses: [[400]] },
  'a chunk with 20 kB of extensions': { bytes: chunked(`1a;${'x'.repeat(20_000)}\r\n${JOB}\r\n0\r\n\r\n`), statuses: [[400, 413]] },
  'lines that end in LF': { bytes: get('').replaceAll('\r\n', '\n'), statuses: [[400]] },
  'a CR alone within a header': { bytes: get('X-Request-Id: a\rb\r\n'), statuses: [[400]] },
  'a folded header': { bytes: get('X-Request-Id: a\r\n b\r\n'), statuses: [[400]] },
  'a NUL within a header': { bytes: get('X-Request-Id: a\0b\r\n'), statuses: [[400]] },
  'a NUL within the path': { bytes: get('', '/jobs/a\0b'), statuses: [[400]] },
  'bytes above 127 in the path': { bytes: binary(get('', '/jobs/\xff\xfe')), statuses: [[400, 404]] },
  'a blank within the path': { bytes: get('', '/jobs/a b'), statuses: [[400]] },
  'a blank within the name of a header': { bytes: get('X Y: z\r\n'), statuses: [[400]] },
  'a header without a name': { bytes: get(': z\r\n'), statuses: [[400]] },
  'a header without a colon': { bytes: get('xyz\r\n'), statuses: [[400]] },
  'a header of 17 kB': { bytes: get(`X: ${'x'.repeat(17_000)}\r\n`), statuses: [[431]] },
  'a path of 20 kB': { bytes: get('', `/jobs/${'x'.repeat(20_000)}`), statuses: [[431]] },
  'ten thousand headers': { bytes: get('X: y\r\n'.repeat(10_000)), statuses: [[431]] },
  'no Host': { bytes: 'GET /health/live HTTP/1.1\r\n\r\n', statuses: [[400]] },
  'two Hosts': { bytes: get('Host: y\r\n'), statuses: [[200, 400]] },
  'an absolute URL': { bytes: get('', 'http://evil.example/health/live'), statuses: [[200, 400, 404]] },
  'a path that begins with two slashes': { bytes: get('', '//evil.example/health/live'), statuses: [[404]] },
  'a path without a slash': { bytes: get('', 'health/live'), statuses: [[400, 404]] },
  'the asterisk form': { bytes: 'OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n', statuses: [[404, 405]] },
  'the asterisk form of GET': { bytes: get('', '*'), statuses: [[400, 404]] },
  'CONNECT': { bytes: 'CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n', statuses: [] },
  'TRACE': { bytes: 'TRACE /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n', statuses: [[404, 405]] },
  'a method in small letters': { bytes: get('').replace('GET', 'get'), statuses: [[400]] },
  'a method of 10 kB': { bytes: get('').replace('GET', 'G'.repeat(10_000)), statuses: [[400]] },
  'HTTP/0.9': { bytes: 'GET /health/live\r\n\r\n', statuses: [[200, 400]] },
  'HTTP/9.9': { bytes: get('').replace('1.1', '9.9'), statuses: [[400]] },
  'the preface of HTTP/2': { bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0', statuses: [[400]] },
  'an upgrade to h2c': { bytes: get('Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n'), statuses: [[200]] },
  'an upgrade to a websocket': { bytes: get('Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n'), statuses: [[200]] },
  'an unknown expectation': { bytes: get('Expect: the-impossible\r\n'), statuses: [[417]] },
  'an expectation with its body': { bytes: post(`Expect: 100-continue\r\n${LENGTH}`, JOB), statuses: [[201]] },
  'a ClientHello of TLS': { bytes: binary([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3], 'x'.repeat(64)), statuses: [[400]] },
  'a banner of SSH': { bytes: 'SSH-2.0-OpenSSH_9.6\r\n', statuses: [[400]] },
  'a command of Redis': { bytes: '*1\r\n$8\r\nFLUSHALL\r\n', statuses: [[400]] },
  'garbage behind a request': { bytes: `${get('')}\0\0\0garbage\r\n\r\n`, statuses: [[200], [400]] },
  'twenty requests at once': { bytes: get('').repeat(20), statuses: Array(20).fill([200]) },
  'a request behind one that is refused': { bytes: post(LENGTH, '{'.padEnd(JOB.length)) + get(''), statuses: [[400]] },
  'a body where none belongs': { bytes: get(LENGTH) + JOB + get(''), statuses: [[200], [200]] },
  'UTF-8 that is cut off': { bytes: withBytes(0xc3), statuses: [[400]] },
  'UTF-8 that is longer than need be': { bytes: withBytes(0xc0, 0x80), statuses: [[400]] },
  'half a pair in UTF-8': { bytes: withBytes(0xed, 0xa0, 0x80), statuses: [[400]] },
  'bytes that are no UTF-8': { bytes: withBytes(0xff, 0xfe), statuses: [[400]] },
  'UTF-16 with its mark': { bytes: binary(post('Content-Length: 6\r\n', ''), [0xff, 0xfe, 0x7b, 0, 0x7d, 0]), statuses: [[400]] },
} // biome-ignore format: a table to read, one line each

const valid = [
  get(''),
  get('Accept: */*\r\nX-Request-Id: abc\r\nConnection: keep-alive\r\n', '/jobs/raw:a?include=data&wait=0'),
  get('If-None-Match: "x", W/"y"\r\nPrefer: wait=0\r\n', '/jobs?ids=raw:a,raw:b'),
  get('', '/jobs?queue=raw&state=waiting&limit=2'),
  post(LENGTH, JOB),
  chunked(CHUNKS),
  `${post(LENGTH, JOB)}${get('')}${chunked(CHUNKS)}`,
].map((text) => Buffer.from(text))

const pieces = [
  ...['\r\n', '\n', '\r', '\0', ' ', ':', ',', ';', '%', '0', '-1', 'ffffffff', '\r\n\r\n', 'HTTP/1.1', 'Host: y\r\n'],
  ...['Content-Length: 3\r\n', 'Content-Length: 0\r\n', 'Transfer-Encoding: chunked\r\n', 'Expect: 100-continue\r\n'],
  ...['Connection: close\r\n', 'Connection: upgrade\r\nUpgrade: x\r\n', 'X: \xff\xfe\r\n', '0\r\n\r\n', '5\r\nabcde\r\n'],
].map((text) => Buffer.from(text, 'latin1')) // biome-ignore format: a list to read, not a column

type Change = (bytes: Buffer) => Buffer
const at = (bytes: Buffer, position: number) => position % (bytes.length + 1)

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(fc.nat(), fc.nat(7)).map(
    ([position, bit]): Change =>
      (bytes) => {
        const copy = Buffer.from(bytes)
        if (copy.length > 0) copy[position % copy.length]! ^= 1 << bit
        return copy
      },
  ),
  fc.nat().map(
    (position): Change =>
      (bytes) =>
        bytes.subarray(0, at(bytes, position)),
  ),
  fc.nat().map(
    (position): Change =>
      (bytes) =>
        bytes.subarray(at(bytes, position)),
  ),
  fc.tuple(fc.nat(), fc.constantFrom(...pieces)).map(
    ([position, piece]): Change =>
      (bytes) => {
        const cut = at(bytes, position)
        return Buffer.concat([bytes.subarray(0, cut), piece, bytes.subarray(cut)])
      },
  ),
  // Between lines, where a header may be.
  fc.tuple(fc.nat(), fc.constantFrom(...pieces)).map(
    ([position, piece]): Change =>
      (bytes) => {
        const cut = bytes.indexOf('\r\n', at(bytes, position)) + 2
        return Buffer.concat([bytes.subarray(0, cut), piece, bytes.subarray(cut)])
      },
  ),
  fc.tuple(fc.nat(), fc.nat(40)).map(
    ([position, length]): Change =>
      (bytes) => {
        const cut = at(bytes, position)
        return Buffer.concat([bytes.subarray(0, cut), bytes.subarray(cut + length)])
      },
  ),
  fc.constantFrom(...valid).map(
    (other): Change =>
      (bytes) =>
        Buffer.concat([bytes, other]),
  ),
)

const bytes: fc.Arbitrary<Buffer> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.constantFrom(...valid), fc.array(change, { minLength: 1, maxLength: 4 }))
      .map(([start, changes]) => changes.reduce<Buffer>((changed, apply) => apply(changed), start)),
  },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 400 }).map((some) => Buffer.from(some)) },
  {
    weight: 1,
    arbitrary: fc
      .constantFrom(...Object.values(malformed))
      .map((one) => Buffer.from(one.bytes as string, 'latin1')),
  },
)

/** Requests cut into several writes, with one of several ways to leave. */
export const rawRequests: fc.Arbitrary<RawRequest> = fc
  .tuple(
    bytes,
    fc.array(fc.nat(), { maxLength: 3 }),
    fc.constantFrom<RawRequest['leave']>('end', 'linger', 'linger', 'linger', 'reset', 'vanish'),
  )
  .map(([whole, positions, leave]) => {
    const cuts = [0, ...positions.map((position) => at(whole, position)).sort((a, b) => a - b), whole.length]
    return { pieces: cuts.slice(1).map((cut, index) => whole.subarray(cuts[index], cut)), leave }
  })
