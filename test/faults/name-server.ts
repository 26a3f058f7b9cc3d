/** A name server on loopback that answers every name with 127.0.0.1 or, for names that hang, not at all. */
import { execFileSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Testbed } from './testbed.ts'

export interface NameServer {
  /** Whether names that begin with `hang` remain without an answer. */
  isHanging: boolean
  unanswered(): number
  /** Starts a command, with `env`, that resolves names here alone. */
  wrapper: string[]
  env: Record<string, string>
}

const DNS_PORT = 53
const TYPE_A = 1
const HEADER_BYTES = 12

/** Only root may mount a file for one process, and listen on the port of DNS. */
export function canRunNameServer(): boolean {
  try {
    execFileSync('unshare', ['-m', 'true'], { stdio: 'ignore' })
    return process.getuid?.() === 0
  } catch {
    return false
  }
}

export async function startNameServer(testbed: Testbed): Promise<NameServer> {
  const socket = createSocket('udp4')
  // Tests that run at the same time have other addresses.
  const address = `127.53.${(process.pid >> 8) & 255}.${process.pid & 255 || 1}`
  let unanswered = 0
  socket.on('message', (query, { port, address }) => {
    if (server.isHanging && nameOf(query).startsWith('hang')) unanswered++
    else socket.send(answerTo(query), port, address)
  })
  socket.bind(DNS_PORT, address)
  await once(socket, 'listening')
  testbed.onEnd(() => socket.close())
  const file = join(testbed.dir, 'resolv.conf')
  writeFileSync(file, `nameserver ${address}\n`)
  const server: NameServer = {
    isHanging: false,
    unanswered: () => unanswered,
    wrapper: ['unshare', '-m', 'sh', '-c', 'mount --bind "$RESOLV_CONF" /etc/resolv.conf && exec "$@"', 'sh'],
    env: { RESOLV_CONF: file },
  }
  return server
}

/** Labels are preceded by their lengths (RFC 1035 §4.1.2). */
function nameOf(query: Buffer): string {
  const labels: string[] = []
  for (let at = HEADER_BYTES; query[at]; at += query[at]! + 1) {
    labels.push(query.toString('latin1', at + 1, at + 1 + query[at]!))
  }
  return labels.join('.')
}

/** The question and, for type A, one address that may not be cached. Other types have no record. */
function answerTo(query: Buffer): Buffer {
  const questionEnd = HEADER_BYTES + nameOf(query).length + 2 + 4
  const isTypeA = query.readUInt16BE(questionEnd - 4) === TYPE_A
  const header = Buffer.alloc(HEADER_BYTES)
  query.copy(header, 0, 0, 2)
  // A response with recursion; one question.
  header.writeUInt16BE(0x8180, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(isTypeA ? 1 : 0, 6)
  // A pointer to the name in the question, type A, class IN, TTL 0, four bytes.
  const record = Buffer.from([0xc0, HEADER_BYTES, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1])
  return Buffer.concat([
    header,
    query.subarray(HEADER_BYTES, questionEnd),
    isTypeA ? record : Buffer.alloc(0),
  ])
}
