/**
 * The address guard, tested from outside (fault F3): every URL is really sent while a canary server listens where it
 * would connect. A URL counts as refused only if the guard rejects it and the canary sees no connection: a connection
 * that failed would prove nothing.
 */
import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import { type AddressInfo, connect, type LookupFunction, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  type AddressGuard,
  createAddressGuard,
  ForbiddenUrlError,
} from '../../../src/webhooks/endpoints/address-guard.ts'
import { createWebhookClient } from '../../../src/webhooks/endpoints/webhook-client.ts'

/** DNS records: each lookup gets the next entry, later ones repeat the last. No real name server is queried. */
const records: Record<string, string[][]> = {
  localhost: [['127.0.0.1', '::1']],
  'localhost.': [['127.0.0.1', '::1']],
  'hooks.localhost': [['127.0.0.1']],
  'a.b.localhost.': [['::1']],
  'loopback.test': [['127.0.0.1']],
  'loopback.test.': [['127.0.0.1']],
  'loopback6.test': [['::1']],
  'mapped.test': [['::ffff:127.0.0.1']],
  'mapped-hex.test': [['::ffff:7f00:1']],
  'unspecified.test': [['0.0.0.0']],
  'unspecified6.test': [['::']],
  'xn--mnchen-3ya.test': [['127.0.0.1']],
  'private10.test': [['10.1.2.3']],
  'private172.test': [['172.16.0.1']],
  'private192.test': [['192.168.1.1']],
  'metadata.test': [['169.254.169.254']],
  'metadata6.test': [['fd00:ec2::254']],
  'link-local6.test': [['fe80::1%lo']],
  'compatible.test': [['::127.0.0.1']],
  'nat64.test': [['64:ff9b::7f00:1']],
  '6to4.test': [['2002:7f00:1::1']],
  'teredo.test': [['2001:0:7f00:1::1']],
  'mixed.test': [['8.8.8.8', '127.0.0.1']],
  'mixed-last.test': [['8.8.8.8', '1.1.1.1', '9.9.9.9', '10.0.0.1']],
  'mixed-families.test': [['8.8.8.8', '::1']],
  'mixed6.test': [['2606:4700:4700::1111', 'fd00::1']],
  'rebinding.test': [['8.8.8.8'], ['127.0.0.1']],
  'rebinding6.test': [['2606:4700:4700::1111'], ['::1']],
  'rebinding-slowly.test': [['8.8.8.8'], ['8.8.4.4', '127.0.0.1']],
  'empty.test': [[]],
}

function createDns(zone = records) {
  const queried: string[] = []
  const lookup: LookupFunction = (name, options, callback) => {
    const earlier = queried.filter((other) => other === name).length
    queried.push(name)
    const addresses = zone[name]?.[earlier] ?? zone[name]?.at(-1)
    const error = Object.assign(new Error(`no ${name}`), { code: 'ENOTFOUND' })
    queueMicrotask(() => {
      if (!addresses || !options.all) return callback(error, '')
      const found = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
      callback(null, found)
    })
  }
  return { queried, lookup }
}

/** URLs that would reach the canary without the guard. PORT is replaced by the canary's port. */
const loopback = [
  'http://127.0.0.1:PORT/',
  'http://127.0.0.1:PORT/hook?a=b',
  'HTTP://127.0.0.1:PORT',
  '  http://127.0.0.1:PORT/  ',
  'http:127.0.0.1:PORT',
  'http:/127.0.0.1:PORT',
  'http:///127.0.0.1:PORT',
  'http:\\\\127.0.0.1:PORT\\hook',
  'ht\ttp://127.0.\n0.1:PORT/',
  'http://@127.0.0.1:PORT/',
  'http://127.1:PORT/',
  'http://127.0.1:PORT/',
  'http://127.0.0.1.:PORT/',
  'http://127.1.:PORT/',
  'http://2130706433:PORT/',
  'http://2130706433.:PORT/',
  'http://017700000001:PORT/',
  'http://0x7f000001:PORT/',
  'http://0X7F000001:PORT/',
  'http://0x7f.1:PORT/',
  'http://0x7f.0.0.0x1:PORT/',
  'http://0x7f.0x0.0x0.0x1:PORT/',
  'http://0x7f.0.1:PORT/',
  'http://0177.0.0.1:PORT/',
  'http://0177.1:PORT/',
  'http://0177.0x0.0.01:PORT/',
  'http://00000177.0.0.1:PORT/',
  'http://127.000.000.001:PORT/',
  'http://127.0x0.0.1:PORT/',
  'http://127.0.0x.1:PORT/',
  'http://127.65535:PORT/',
  'http://127.255.255.254:PORT/',
  'http://127.0.0.2:PORT/',
  'http://127。0。0。1:PORT/',
  'http://127．0．0．1:PORT/',
  'http://127｡0｡0｡1:PORT/',
  'http://１２７.０.０.１:PORT/',
  'http://①②⑦.⓪.⓪.①:PORT/',
  'http://𝟏𝟐𝟕.𝟎.𝟎.𝟏:PORT/',
  'http://２１３０７０６４３３:PORT/',
  'http://０x7f.1:PORT/',
  'http://%31%32%37.0.0.1:PORT/',
  'http://127%2e0%2e0%2e1:PORT/',
  'http://127.0.0.1%2e:PORT/',
  'http://127.0.0\u00ad.1:PORT/',
  'http://127.0.0\u200b.1:PORT/',
  'http://0.0.0.0:PORT/',
  'http://0:PORT/',
  'http://0x0:PORT/',
  'http://00.00.00.00:PORT/',
  'http://[::1]:PORT/',
  'http://[0:0:0:0:0:0:0:1]:PORT/',
  'http://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT/',
  'http://[::0.0.0.1]:PORT/',
  'http://[::]:PORT/',
  'http://[::0.0.0.0]:PORT/',
  'http://[::ffff:127.0.0.1]:PORT/',
  'http://[::FFFF:7f00:1]:PORT/',
  'http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/',
  'http://[::ffff:0.0.0.0]:PORT/',
  'http://localhost:PORT/',
  'http://LocalHost:PORT/',
  'http://localhost.:PORT/',
  'http://ｌｏｃａｌｈｏｓｔ:PORT/',
  'http://loc%61lhost:PORT/',
  'http://hooks.localhost:PORT/',
  'http://a.b.localhost.:PORT/',
  'http://loopback.test:PORT/',
  'http://LOOPBACK.test.:PORT/',
  'http://loopback。test:PORT/',
  'http://loopback6.test:PORT/',
  'http://mapped.test:PORT/',
  'http://mapped-hex.test:PORT/',
  'http://unspecified.test:PORT/',
  'http://unspecified6.test:PORT/',
  'http://münchen.test:PORT/',
]

/** URLs of other internal addresses, or of tunnels that end at one. */
const elsewhere = [
  'http://10.0.0.1:PORT/',
  'http://10.255.255.255:PORT/',
  'http://0xa000001:PORT/',
  'http://012.0.0.1:PORT/',
  'http://172.16.0.1:PORT/',
  'http://172.31.255.255:PORT/',
  'http://192.168.0.1:PORT/',
  'http://3232235521:PORT/',
  'http://169.254.169.254/latest/meta-data/',
  'http://169.254.169.254:PORT/',
  'http://2852039166/latest/meta-data/',
  'http://0xa9fea9fe/',
  'http://0251.0376.0251.0376/',
  'http://169.254.43518/',
  'http://169.254.170.2/v2/credentials',
  'http://168.63.129.16/machine?comp=goalstate',
  'http://100.100.100.200/latest/meta-data/',
  'http://192.0.0.192/opc/v1/instance/',
  'http://[fd00:ec2::254]/latest/meta-data/',
  'http://[fd20:ce::254]/computeMetadata/v1/',
  'http://[::ffff:169.254.169.254]/',
  'http://[::ffff:a9fe:a9fe]/',
  'http://[64:ff9b::169.254.169.254]/',
  'http://100.64.0.1:PORT/',
  'http://100.127.255.255:PORT/',
  'http://0.1.2.3:PORT/',
  'http://192.0.0.1:PORT/',
  'http://192.0.0.8:PORT/',
  'http://192.0.2.1:PORT/',
  'http://192.88.99.1:PORT/',
  'http://198.18.0.1:PORT/',
  'http://198.19.255.255:PORT/',
  'http://198.51.100.1:PORT/',
  'http://203.0.113.1:PORT/',
  'http://224.0.0.1:PORT/',
  'http://239.255.255.255:PORT/',
  'http://240.0.0.1:PORT/',
  'http://255.255.255.255:PORT/',
  'http://4294967295:PORT/',
  'http://[::127.0.0.1]:PORT/',
  'http://[::7f00:1]:PORT/',
  'http://[::8.8.8.8]:PORT/',
  'http://[::ffff:0:127.0.0.1]:PORT/',
  'http://[::ffff:10.0.0.1]:PORT/',
  'http://[64:ff9b::127.0.0.1]:PORT/',
  'http://[64:ff9b::7f00:1]:PORT/',
  'http://[64:ff9b::10.0.0.1]:PORT/',
  'http://[64:ff9b:1::127.0.0.1]:PORT/',
  'http://[64:ff9b:1::8.8.8.8]:PORT/',
  'http://[2002:7f00:1::]:PORT/',
  'http://[2002:7f00:1::1]:PORT/',
  'http://[2002:a00:1::1]:PORT/',
  'http://[2002:808:808::1]:PORT/',
  'http://[2001::80ff:fffe]:PORT/',
  'http://[2001:0:7f00:1::1]:PORT/',
  'http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:PORT/',
  'http://[2606:4700::5efe:127.0.0.1]:PORT/',
  'http://[2606:4700::200:5efe:7f00:1]:PORT/',
  'http://[fe80::1]:PORT/',
  'http://[febf::1]:PORT/',
  'http://[fe80::5efe:127.0.0.1]:PORT/',
  'http://[fec0::1]:PORT/',
  'http://[feff::1]:PORT/',
  'http://[fc00::1]:PORT/',
  'http://[fdff:ffff::1]:PORT/',
  'http://[ff02::1]:PORT/',
  'http://[ff0e::1]:PORT/',
  'http://[100::1]:PORT/',
  'http://[100:0:0:1::1]:PORT/',
  'http://[2001:2::1]:PORT/',
  'http://[2001:10::1]:PORT/',
  'http://[2001:20::1]:PORT/',
  'http://[2001:db8::1]:PORT/',
  'http://[3fff::1]:PORT/',
  'http://[5f00::1]:PORT/',
  'http://[4000::1]:PORT/',
  'http://[::2]:PORT/',
  'http://private10.test:PORT/',
  'http://private172.test:PORT/',
  'http://private192.test:PORT/',
  'http://metadata.test/latest/meta-data/',
  'http://metadata6.test/',
  'http://link-local6.test:PORT/',
  'http://compatible.test:PORT/',
  'http://nat64.test:PORT/',
  'http://6to4.test:PORT/',
  'http://teredo.test:PORT/',
  'http://mixed.test:PORT/',
  'http://mixed-last.test:PORT/',
  'http://mixed-families.test:PORT/',
  'http://mixed6.test:PORT/',
]

/** URLs that are refused for their form, whatever their host. */
const malformed = [
  'http://user@127.0.0.1:PORT/',
  'http://user:password@127.0.0.1:PORT/',
  'http://:password@127.0.0.1:PORT/',
  'http://8.8.8.8@127.0.0.1:PORT/',
  'http://8.8.8.8:80@127.0.0.1:PORT/',
  'http://127.0.0.1:PORT@8.8.8.8/',
  'http://8.8.8.8%40@127.0.0.1:PORT/',
  'http://127.0.0.1:PORT#@8.8.8.8/',
  'http://8.8.8.8/#fragment',
  'http://8.8.8.8/#',
  'https://8.8.8.8:443/hook?a=b#c',
  'ftp://127.0.0.1:PORT/',
  'ws://127.0.0.1:PORT/',
  'wss://127.0.0.1:PORT/',
  'gopher://127.0.0.1:PORT/_POST',
  'file:///etc/passwd',
  'file://127.0.0.1/etc/passwd',
  'data:text/plain,hello',
  'javascript:alert(1)',
  'blob:http://127.0.0.1:PORT/a',
  'unix:/run/redis.sock',
  'http+unix://%2Frun%2Fredis.sock/',
  'redis://127.0.0.1:PORT/',
  'jar:http://127.0.0.1:PORT!/',
  'url:http://127.0.0.1:PORT/',
  '',
  '/hook',
  '//127.0.0.1:PORT/',
  '127.0.0.1:PORT',
  'localhost:PORT',
  'http://',
  'http:',
  'http://:PORT/',
  'http://.:PORT/',
  'http://127.0.0.1:PORT:80/',
  'http://127.0.0.1:99999/',
  'http://127.0.0.1 :PORT/',
  'http://127.0.0.1\\@8.8.8.8:PORT:/',
  'http://127.0.0.256:PORT/',
  'http://127.0.0.1.1:PORT/',
  'http://4294967296:PORT/',
  'http://0x100000000:PORT/',
  'http://[::1:PORT/',
  'http://::1:PORT/',
  'http://[::1%lo]:PORT/',
  'http://[fe80::1%25eth0]:PORT/',
  'http://[::ffff:127.1]:PORT/',
  'http://[::ffff:0x7f.0.0.1]:PORT/',
  'http://[127.0.0.1]:PORT/',
  'http://loop%00back.test:PORT/',
  'http://loopback.test%2f@8.8.8.8:PORT/',
  'http://xn--:PORT/',
]

const REFUSAL = /^The (URL|address|name) .*(not allowed|must|is not valid|has no address that webhooks may)/

/** Counts connections and requests to 127.0.0.1, ::1 and a few other loopback addresses, on one port. */
async function startCanary(t: Test) {
  const seen = { connections: 0, requests: 0 }
  const listener: RequestListener = (_request, response) => {
    seen.requests++
    response.setHeader('connection', 'close').end()
  }
  const port = await listen(t, '127.0.0.1', listener, seen)
  await listen(t, '127.0.0.2', listener, seen, port)
  await listen(t, '127.0.255.255', listener, seen, port)
  await listen(t, '127.255.255.254', listener, seen, port)
  const hasIpv6 = await listen(t, '::1', listener, seen, port).then(
    () => true,
    () => false,
  )
  return { port, seen, hasIpv6 }
}

async function listen(t: Test, host: string, listener: RequestListener, seen = { connections: 0 }, port = 0) {
  const server: Server = createServer(listener)
  server.on('connection', () => seen.connections++)
  server.listen(port, host)
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function startClient(t: Test, guard: AddressGuard) {
  const client = createWebhookClient({ guard, maxResponseBytes: 1_024 })
  t.teardown(() => client.close())
  return (url: string) => client.send({ url, headers: {}, body: '{}', timeoutMs: 2_000 })
}

t.test('no URL that points inside the network reaches the canary', async (t) => {
  const urls = [...loopback, ...elsewhere, ...malformed]
  t.ok(urls.length >= 120, `${urls.length} URLs`)
  t.equal(new Set(urls).size, urls.length)
  const { port, seen } = await startCanary(t)
  const guard = createAddressGuard({ allowCidrs: [], lookup: createDns().lookup })
  const send = startClient(t, guard)
  for (const text of urls) {
    const url = text.replaceAll('PORT', `${port}`)
    await t.rejects((async () => guard.resolve(guard.parse(url)))(), ForbiddenUrlError, `registering ${text}`)
    t.match(await send(url), { status: undefined, reason: REFUSAL }, `sending to ${text}`)
  }
  t.same(seen, { connections: 0, requests: 0 })
})

t.test('control: with the loopback allowed, the same URLs do reach the canary', async (t) => {
  const { port, seen, hasIpv6 } = await startCanary(t)
  const guard = createAddressGuard({
    allowCidrs: ['127.0.0.0/8', '0.0.0.0/32', '::1/128', '::/128'],
    lookup: createDns().lookup,
  })
  const send = startClient(t, guard)
  const urls = loopback.filter((url) => hasIpv6 || !/\[(?!.*ffff)|6\.test|a\.b\.localhost/i.test(url))
  for (const text of urls) {
    const url = text.replaceAll('PORT', `${port}`)
    await guard.resolve(guard.parse(url))
    t.match(await send(url), { status: 200 }, text)
  }
  t.equal(seen.requests, urls.length)
})

t.test(
  'a name whose address changes after registration (DNS rebinding) is refused when it is called',
  async (t) => {
    const { port, seen } = await startCanary(t)
    const guard = createAddressGuard({ allowCidrs: [], lookup: createDns().lookup })
    const send = startClient(t, guard)
    for (const name of ['rebinding.test', 'rebinding6.test', 'rebinding-slowly.test']) {
      const url = `http://${name}:${port}/`
      await guard.resolve(guard.parse(url))
      t.match(await send(url), {
        status: undefined,
        reason: `The name ${name} has no address that webhooks may be sent to.`,
      })
    }
    t.same(seen, { connections: 0, requests: 0 })
  },
)

t.test('a connection uses the address that was checked, without a second lookup', async (t) => {
  const { port, seen } = await startCanary(t)
  const endpoint = { connections: 0 }
  await listen(t, '127.0.0.3', (_request, response) => response.end(), endpoint, port)
  const dns = createDns({ 'turning.test': [['127.0.0.3'], ['127.0.0.1']] })
  const guard = createAddressGuard({ allowCidrs: ['127.0.0.3/32'], lookup: dns.lookup })
  const url = `http://turning.test:${port}/`
  const send = startClient(t, guard)
  t.match(await send(url), { status: 200 })
  await setImmediate()
  t.match(await send(url), { status: 200 }, 'over the same connection')
  t.same(dns.queried, ['turning.test'])
  t.equal(endpoint.connections, 1)
  const sendAgain = startClient(t, guard)
  t.match(await sendAgain(url), { status: undefined, reason: REFUSAL })
  t.same(seen, { connections: 0, requests: 0 })
})

t.test('an allowed endpoint cannot redirect to a forbidden address', async (t) => {
  const { port, seen } = await startCanary(t)
  const endpointPort = await listen(t, '127.0.0.3', ({ url }, response) => {
    const { searchParams } = new URL(url!, 'http://endpoint')
    response.writeHead(Number(searchParams.get('status')), { location: searchParams.get('to')! }).end()
  })
  const send = startClient(
    t,
    createAddressGuard({ allowCidrs: ['127.0.0.3/32'], lookup: createDns().lookup }),
  )
  for (const status of [300, 301, 302, 303, 305, 307, 308]) {
    for (const to of [`http://127.0.0.1:${port}/`, `//localhost:${port}/`, `http://[::1]:${port}/`]) {
      const query = new URLSearchParams({ status: `${status}`, to })
      t.match(await send(`http://127.0.0.3:${endpointPort}/?${query}`), { status }, `${status} to ${to}`)
    }
  }
  t.same(seen, { connections: 0, requests: 0 })
})

t.test('the lookup returns all addresses or only the first, as requested', async (t) => {
  const dns = createDns({
    'two.test': [['8.8.8.8', '2606:4700:4700::1111']],
    'mixed.test': [['8.8.8.8', '::1']],
  })
  const { lookup } = createAddressGuard({ allowCidrs: [], lookup: dns.lookup })
  const query = (name: string, all: boolean) =>
    new Promise((resolve) => lookup(name, { all }, (...result) => resolve(result)))
  const both = [
    { address: '8.8.8.8', family: 4 },
    { address: '2606:4700:4700::1111', family: 6 },
  ]
  t.same(await query('two.test', true), [null, both])
  t.same(await query('two.test', false), [null, '8.8.8.8', 4])
  for (const all of [true, false]) {
    const [refusal] = (await query('mixed.test', all)) as [Error]
    t.ok(refusal instanceof ForbiddenUrlError)
    const [missing] = (await query('missing.test', all)) as [Error]
    t.match(missing, { message: 'The name missing.test has no address that webhooks may be sent to.' })
  }
})

t.test('a socket that uses the lookup connects to allowed addresses only', async (t) => {
  const { port, seen } = await startCanary(t)
  const open = async (allowCidrs: string[], autoSelectFamily: boolean) => {
    const { lookup } = createAddressGuard({ allowCidrs, lookup: createDns().lookup })
    const socket: Socket = connect({ host: 'loopback.test', port, lookup, autoSelectFamily })
    await once(socket, 'connect').finally(() => socket.destroy())
  }
  for (const autoSelectFamily of [true, false]) {
    await t.rejects(open([], autoSelectFamily), ForbiddenUrlError)
    t.equal(seen.connections, 0)
  }
  await open(['127.0.0.1/32'], true)
  await open(['127.0.0.1/32'], false)
})

t.test('concurrent lookups of a name share one query; the next lookup queries again', async (t) => {
  const dns = createDns({ 'shared.test': [['8.8.8.8'], ['127.0.0.1']] })
  const guard = createAddressGuard({ allowCidrs: [], lookup: dns.lookup })
  const url = guard.parse('https://shared.test/')
  await Promise.all([guard.resolve(url), guard.resolve(url), guard.resolve(url)])
  t.equal(dns.queried.length, 1)
  await t.rejects(guard.resolve(url), ForbiddenUrlError)
})

t.test('a refusal says why, but not what a name resolves to', async (t) => {
  const guard = createAddressGuard({ allowCidrs: [], lookup: createDns().lookup })
  const reasonOf = (url: string) =>
    (async () => guard.resolve(guard.parse(url)))().then(
      () => undefined,
      (error: Error) => error.message,
    )
  t.equal(await reasonOf('https://0x7f.1/hook'), 'The address 127.0.0.1 is not allowed.')
  t.equal(await reasonOf('https://[::1]/'), 'The address ::1 is not allowed.')
  for (const name of ['private10.test', 'missing.test', 'empty.test', 'mixed.test'])
    t.equal(
      await reasonOf(`https://${name}/`),
      `The name ${name} has no address that webhooks may be sent to.`,
    )
  t.equal(await reasonOf('ftp://a.test/'), 'The URL must start with https:// or http://.')
  t.notMatch(await reasonOf('https://user:hunter2@a.test/'), 'hunter2')
  t.equal(await reasonOf('https://8.8.8.8/hook?a=b'), undefined)
  t.equal(await reasonOf('https://[2606:4700:4700::1111]:8443/'), undefined)
})

t.test('public addresses are allowed', async (t) => {
  const { mayReach } = createAddressGuard({ allowCidrs: [], lookup: createDns().lookup })
  const edges = ['9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '126.255.255.255', '128.0.0.0']
  const more = [
    '169.253.255.255',
    '169.255.0.0',
    '172.15.255.255',
    '172.32.0.0',
    '192.0.1.0',
    '192.167.255.255',
  ]
  const last = ['192.169.0.0', '198.17.255.255', '198.20.0.0', '223.255.255.255', '168.63.129.15', '1.0.0.0']
  const ipv6 = [
    '2606:4700:4700::1111',
    '2a00::1',
    '2001:200::1',
    '2003::1',
    '::ffff:8.8.8.8',
    '64:ff9b::8.8.8.8',
  ]
  for (const address of [...edges, ...more, ...last, ...ipv6]) t.ok(mayReach(address), address)
})

t.test('text that is not an IP address is not allowed', async (t) => {
  const { mayReach } = createAddressGuard({ allowCidrs: ['0.0.0.0/0', '::/0'], lookup: createDns().lookup })
  for (const text of ['', '8', '8.8', '0x8.8.8.8', '08.8.8.8', '8.8.8.8 ', 'a.test', '::g', '[::1]']) {
    t.notOk(mayReach(text), JSON.stringify(text))
  }
})

t.test('a CIDR allows exactly the addresses in it', async (t) => {
  const { mayReach } = createAddressGuard({
    allowCidrs: ['10.1.2.3/16', 'fd00:1::/32', '192.168.7.7/32', '64:ff9b::a00:0/104'],
    lookup: createDns().lookup,
  })
  const inside = [
    '10.1.0.0',
    '10.1.255.255',
    '::ffff:10.1.9.9',
    'fd00:1::9',
    '192.168.7.7',
    '64:ff9b::10.9.9.9',
  ]
  for (const address of inside) t.ok(mayReach(address), address)
  const outside = ['10.2.0.0', 'fd00:2::1', '192.168.7.8', '127.0.0.1', '::10.1.2.3', '2002:a01:203::1']
  for (const address of outside) t.notOk(mayReach(address), address)
  t.notOk(
    createAddressGuard({ allowCidrs: ['::/0'], lookup: createDns().lookup }).mayReach('127.0.0.1'),
    'an IPv6 CIDR allows no IPv4 address',
  )
  t.notOk(
    createAddressGuard({ allowCidrs: ['10.0.0.0/8'], lookup: createDns().lookup }).mayReach(
      '64:ff9b::10.0.0.1',
    ),
    'an allowed IPv4 range is not allowed through NAT64',
  )
})

t.test('the error for an invalid CIDR quotes it', async (t) => {
  const wrong = [
    '10.0.0.0',
    '10/8',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/',
    '010.0.0.0/8',
    '10.0.0.0/8/8',
    '',
  ]
  for (const cidr of [
    ...wrong,
    'fd00::/129',
    '::ffff:10.0.0.0/104',
    '::ffff:10.0.0.0/24',
    'localhost/8',
    'fd00::',
    '10.0.0.0/8 ',
  ]) {
    t.throws(
      () => createAddressGuard({ allowCidrs: ['10.0.0.0/8', cidr], lookup: createDns().lookup }),
      { message: new RegExp(`^"${cidr}" is not a CIDR`) },
      cidr,
    )
  }
})
