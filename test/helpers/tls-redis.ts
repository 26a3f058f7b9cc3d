/**
 * A redis-server that requires TLS with client certificates, and generated certificates for both sides. Its unix socket
 * stays open, so that a test can inspect the server.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import type { Test } from 'tap'
import { startRedis, type TestRedis } from './redis.ts'

/** A certificate and its key, in PEM format. */
export interface Pair {
  cert: string
  key: string
}

export interface Authority {
  cert: string
  /** Issues a certificate for a client, or for a server of that host name or address. */
  issue(name: string): Promise<Pair>
}

const modern = { keyType: 'ec', algorithm: 'sha256' } as const

export async function createAuthority(name = 'Test authority'): Promise<Authority> {
  const ca = await generate([{ name: 'commonName', value: name }], {
    ...modern,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  })
  return {
    cert: ca.cert,
    async issue(host) {
      const isAddress = /^[\d.]+$/.test(host)
      const issued = await generate([{ name: 'commonName', value: host }], {
        ...modern,
        ca: { key: ca.private, cert: ca.cert },
        extensions: [
          { name: 'basicConstraints', cA: false },
          { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
          {
            name: 'subjectAltName',
            altNames: [isAddress ? { type: 7, ip: host } : { type: 2, value: host }],
          },
        ],
      })
      return { cert: issued.cert, key: issued.private }
    },
  }
}

/** Creates a folder for the test. The returned function writes a file to it and resolves with its path. */
export async function createFolder(t: Test): Promise<(name: string, text: string) => Promise<string>> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-tls-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return async (name, text) => {
    await writeFile(join(folder, name), text)
    return join(folder, name)
  }
}

export interface TlsRedis extends TestRedis {
  port: number
}

/** Presents `pair`, accepts only clients with a certificate of `authority`, and listens on no other port. */
export async function startTlsRedis(t: Test, authority: Authority, pair: Pair): Promise<TlsRedis> {
  const write = await createFolder(t)
  const port = await freePort()
  const redis = await startRedis([
    ...['--bind', '127.0.0.1', '--port', '0', '--tls-port', `${port}`, '--tls-auth-clients', 'yes'],
    ...['--tls-ca-cert-file', await write('ca.pem', authority.cert)],
    ...['--tls-cert-file', await write('server.pem', pair.cert)],
    ...['--tls-key-file', await write('server.key', pair.key)],
  ])
  t.teardown(() => redis.stop())
  return { ...redis, port }
}

/** A free TCP port. Another process may still take it before it is used. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}
