/** How names of endpoints are resolved: hosts file, DNS with a search list, the operating system. DNS is a real server. */
import type { LookupAddress } from 'node:dns'
import t, { type Test } from 'tap'
import {
  createNameResolver,
  type NameResolverOptions,
} from '../../../src/webhooks/endpoints/name-resolver.ts'
import { parseHosts, parseSearchList, queryNames } from '../../../src/webhooks/endpoints/resolver-config.ts'
import { type DnsAnswer, startDnsServer } from '../dns-server.ts'

const KUBERNETES = 'search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n'

async function setUp(
  t: Test,
  answer: (name: string, type: 'A' | 'AAAA') => DnsAnswer,
  options: NameResolverOptions & { hosts?: string; resolvConf?: string } = {},
) {
  const dns = await startDnsServer(t, answer)
  const askedOfSystem: string[] = []
  const { hosts = '127.0.0.1 localhost\n::1 localhost ip6-localhost\n', resolvConf = '', ...others } = options
  const { lookup } = createNameResolver({
    servers: dns.servers,
    read: async (path) => (path === '/etc/hosts' ? hosts : resolvConf),
    async askSystem(name) {
      askedOfSystem.push(name)
      throw Object.assign(new Error(name), { code: 'ENOTFOUND' })
    },
    ...others,
  })
  const resolve = (name: string, family = 0) =>
    new Promise<string[] | string>((done) => {
      lookup(name, { all: true, family }, (error, found) =>
        done(error ? error.constructor.name : (found as LookupAddress[]).map(({ address }) => address)),
      )
    })
  return { resolve, lookup, queried: dns.queried, askedOfSystem }
}

t.test('a name of the hosts file needs no DNS', async (t) => {
  const { resolve, queried } = await setUp(t, () => undefined)
  t.same(await resolve('localhost'), ['127.0.0.1', '::1'])
  t.same(await resolve('LOCALHOST.'), ['127.0.0.1', '::1'])
  t.same(await resolve('localhost', 6), ['::1'])
  t.same(queried, [])
})

t.test('a name is resolved by DNS, also when the server never responds to AAAA', async (t) => {
  const { resolve, lookup } = await setUp(t, (_, type) =>
    type === 'A' ? ['192.0.2.1', '192.0.2.2'] : undefined,
  )
  const startedAt = performance.now()
  t.same(await resolve('hooks.test'), ['192.0.2.1', '192.0.2.2'])
  t.ok(performance.now() - startedAt < 1_000)
  const one = await new Promise((done) => lookup('hooks.test', {}, (...result) => done(result)))
  t.same(one, [null, '192.0.2.1', 4])
})

t.test(
  'names of Kubernetes services are found with the search list, in the order of getaddrinfo',
  async (t) => {
    const zone: Record<string, string[]> = {
      'hooks.shop.svc.cluster.local': ['10.0.0.1'],
      'hooks.billing.svc.cluster.local': ['10.0.0.2'],
      'example.com': ['192.0.2.9'],
    }
    const { resolve, queried } = await setUp(t, (name) => zone[name] ?? 'NXDOMAIN', {
      resolvConf: KUBERNETES,
    })
    t.same(await resolve('hooks'), ['10.0.0.1'])
    t.same(await resolve('hooks.billing'), ['10.0.0.2'])
    t.same(await resolve('hooks.billing.svc.cluster.local'), ['10.0.0.2'])
    queried.length = 0
    t.same(await resolve('example.com'), ['192.0.2.9'])
    t.same(queried, [
      'example.com.shop.svc.cluster.local',
      'example.com.svc.cluster.local',
      'example.com.cluster.local',
      'example.com',
    ])
    queried.length = 0
    t.same(await resolve('example.com.'), ['192.0.2.9'])
    t.same(queried, ['example.com'], 'a final dot turns the search off')
  },
)

t.test('a name that DNS does not know is asked of the operating system', async (t) => {
  const { resolve, askedOfSystem } = await setUp(t, () => 'NXDOMAIN')
  t.equal(await resolve('printer.local'), 'NotFoundError')
  t.same(askedOfSystem, ['printer.local'])
  const found = await setUp(t, () => 'NXDOMAIN', {
    askSystem: async () => [{ address: '192.0.2.7', family: 4 }],
  })
  t.same(await found.resolve('printer.local'), ['192.0.2.7'])
  const offline = await setUp(t, () => 'NXDOMAIN', {
    servers: ['127.0.0.1:1'],
    askSystem: async () => [{ address: '192.0.2.8', family: 4 }],
  })
  t.same(await offline.resolve('a.test'), ['192.0.2.8'], 'also without any DNS server')
})

t.test('a server that fails or is silent leaves it open whether the name exists', async (t) => {
  const failing = await setUp(t, () => 'SERVFAIL')
  t.equal(await failing.resolve('a.test'), 'NotResolvedError')
  t.same(failing.askedOfSystem, [])
  const silent = await setUp(t, () => undefined, { deadlineMs: 300 })
  const startedAt = performance.now()
  t.equal(await silent.resolve('a.test'), 'NotResolvedError')
  t.ok(performance.now() - startedAt < 1_000)
})

t.test(
  'the operating system is asked for one name at a time, and the deadline holds while it hangs',
  async (t) => {
    const asked: string[] = []
    let hang = () => {}
    const { resolve } = await setUp(t, () => 'NXDOMAIN', {
      deadlineMs: 300,
      askSystem(name) {
        asked.push(name)
        return new Promise((done) => {
          hang = () => done([{ address: '192.0.2.1', family: 4 }])
        })
      },
    })
    const results = await Promise.all(['a', 'b', 'c'].map((name) => resolve(name)))
    t.same(results, ['NotResolvedError', 'NotResolvedError', 'NotResolvedError'])
    t.same(asked, ['a'], 'those whose time is over are not asked any more')
    hang()
    const next = resolve('d')
    while (!asked.includes('d')) await new Promise((done) => setImmediate(done))
    hang()
    t.same(await next, ['192.0.2.1'])
  },
)

t.test('the hosts file and resolv.conf are read as the resolver of glibc does', async (t) => {
  const hosts = parseHosts(
    '# a comment\n127.0.0.1\tlocalhost Api.Local # here\n\n::1 localhost\nno address\n127.0.0.1 localhost',
  )
  t.same(hosts.get('localhost'), ['127.0.0.1', '::1'])
  t.same(hosts.get('api.local'), ['127.0.0.1'])
  t.equal(hosts.size, 2)
  t.same(parseSearchList(''), { domains: [], ndots: 1 })
  t.same(parseSearchList('domain a.test\nsearch b.test. c.test\n; search d.test\noptions rotate ndots:99'), {
    domains: ['b.test', 'c.test'],
    ndots: 15,
  })
  t.same(parseSearchList(`search ${'x.test '.repeat(50)}`).domains.length, 6)
  t.same(queryNames('a.b', { domains: ['x'], ndots: 1 }), ['a.b', 'a.b.x'])
  t.same(queryNames('a', { domains: ['x'], ndots: 1 }), ['a.x', 'a'])
})
