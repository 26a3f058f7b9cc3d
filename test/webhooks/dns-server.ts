/** A DNS server on loopback that responds as the test says, also not at all. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import type { Test } from 'tap'

/** IPv4 addresses; an empty list: the name has none (NODATA). `undefined`: never responds. */
export type DnsAnswer = string[] | 'NXDOMAIN' | 'SERVFAIL' | undefined

const CODES = { NXDOMAIN: 3, SERVFAIL: 2 }
const A = 1

export async function startDnsServer(t: Test, answer: (name: string, type: 'A' | 'AAAA') => DnsAnswer) {
  const queried: string[] = []
  const socket = createSocket('udp4')
  socket.on('message', (query, { port }) => {
    const labels: string[] = []
    let at = 12
    for (; query[at]! > 0; at += query[at]! + 1)
      labels.push(query.toString('latin1', at + 1, at + 1 + query[at]!))
    const name = labels.join('.')
    const isIpv4 = query.readUInt16BE(at + 1) === A
    if (isIpv4) queried.push(name)
    const found = answer(name, isIpv4 ? 'A' : 'AAAA')
    if (found === undefined) return
    const addresses = typeof found === 'string' || !isIpv4 ? [] : found
    const head = Buffer.alloc(12)
    head.writeUInt16BE(query.readUInt16BE(0), 0)
    head.writeUInt16BE(0x8180 | (typeof found === 'string' ? CODES[found] : 0), 2)
    head.writeUInt16BE(1, 4)
    head.writeUInt16BE(addresses.length, 6)
    const records = addresses.map((address) =>
      Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...address.split('.').map(Number)]),
    )
    socket.send(Buffer.concat([head, query.subarray(12, at + 5), ...records]), port)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return { servers: [`127.0.0.1:${socket.address().port}`], queried }
}
