/** The rules of the house that a machine can check: who may import whom, and how large a file may grow. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import t from 'tap'

const src = 'src'
const files = readdirSync(src, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
  .map((entry) => relative(src, join(entry.parentPath, entry.name)))

interface Import {
  from: string
  /** A package's name, or a file below src. */
  to: string
  typeOnly: boolean
}

const imports: Import[] = files.flatMap((from) => {
  const text = readFileSync(join(src, from), 'utf8')
  return [...text.matchAll(/^import (type )?[^'"]*?(?:from )?'([^']+)'/gms)].map(([, type, to]) => ({
    from,
    to: to!.startsWith('.') ? relative(src, join(src, dirname(from), to!)) : to!,
    typeOnly: type !== undefined,
  }))
})

const folderOf = (file: string) => (file.includes('/') ? file.slice(0, file.indexOf('/')) : '')
const features = ['jobs', 'leases', 'webhooks', 'health']

function offenders(isOffence: (found: Import) => boolean): string[] {
  return imports.filter(isOffence).map(({ from, to }) => `${from} → ${to}`)
}

t.test('the rules see the imports at all', async (t) => {
  t.ok(imports.some(({ from, to }) => from === 'app.ts' && to === 'jobs/enqueue/enqueuer.ts'))
  t.ok(imports.some(({ from, to }) => from === 'redis/connection/connections.ts' && to === 'ioredis'))
})

t.test('features import neither each other nor http/', async (t) => {
  const bad = offenders(({ from, to }) => {
    const [own, other] = [folderOf(from), folderOf(to)]
    return features.includes(own) && other !== own && (features.includes(other) || other === 'http')
  })
  t.same(bad, [])
})

t.test(
  'dependencies point inwards: features → dispatch → events, queues → redis → bullmq → config, auth, errors',
  async (t) => {
    const rank: Record<string, number> = {
      '': 0,
      config: 0,
      auth: 0,
      bullmq: 1,
      redis: 2,
      queues: 3,
      events: 3,
      dispatch: 4,
    }
    for (const feature of features) rank[feature] = 5
    const roots = ['app.ts', 'server.ts', 'cli/key.ts', 'cli/key-command.ts']
    const bad = offenders(({ from, to }) => {
      if (roots.includes(from) || folderOf(from) === 'http' || !to.endsWith('.ts')) return false
      return roots.includes(to) || (rank[folderOf(to)] ?? 9) > (rank[folderOf(from)] ?? 9)
    })
    t.same(bad, [])
    t.same(
      offenders(
        ({ from, to }) =>
          folderOf(from) === 'http' &&
          ['redis', 'queues', 'events', 'dispatch', ...features].includes(folderOf(to)),
      ),
      [],
      'http/ knows no domain',
    )
  },
)

t.test('only server, app, http/ and routes know fastify', async (t) => {
  const bad = offenders(
    ({ from, to }) =>
      /^@?fastify/.test(to) &&
      !['server.ts', 'app.ts'].includes(from) &&
      folderOf(from) !== 'http' &&
      !from.endsWith('routes.ts'),
  )
  t.same(bad, [])
})

t.test(
  'only redis/ imports ioredis, only bullmq/, queues/ and dispatch/ import bullmq at runtime',
  async (t) => {
    t.same(
      offenders(({ from, to }) => to === 'ioredis' && folderOf(from) !== 'redis'),
      [],
    )
    t.same(
      offenders(
        ({ from, to, typeOnly }) =>
          to === 'bullmq' && !typeOnly && !['bullmq', 'queues', 'dispatch'].includes(folderOf(from)),
      ),
      [],
    )
  },
)

t.test('only server.ts and cli/, and what spawns processes, touch process', async (t) => {
  const bad = files.filter((file) => {
    const code = readFileSync(join(src, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    return /\bprocess\.(env|exit|on|argv|cwd|stdout|stderr)\b/.test(code)
  })
  t.same(bad.sort(), [
    'cli/key.ts',
    'redis/embedded/append-only-file.ts',
    'redis/embedded/embedded-redis.ts',
    'server.ts',
  ])
})

t.test('there is no drawer for odds and ends', async (t) => {
  const bad = files.filter((file) =>
    /(^|\/)(utils?|types|services|controllers|helpers|common|models|index)(\/|\.ts$)/.test(file),
  )
  t.same(bad, [])
})

t.test('a file fits a reader’s head: about 200 lines, a table up to 300', async (t) => {
  const long = files.filter((file) => readFileSync(join(src, file), 'utf8').split('\n').length > 300)
  t.same(long, [])
})

t.test('every file says what it is for', async (t) => {
  const silent = files.filter((file) => !readFileSync(join(src, file), 'utf8').startsWith('/**'))
  t.same(silent, [])
})
