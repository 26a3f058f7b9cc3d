/**
 * The structure rules that a machine can check. Exceptions are listed by name, and a list may only shrink: an exception
 * that is no longer needed fails the test as a violation does.
 */
import t, { type Test } from 'tap'
import ts from 'typescript'
import {
  allFiles,
  exportedNames,
  files,
  findCycle,
  folderOf,
  functionLengths,
  type Import,
  imports,
  luaFiles,
  nameOf,
  nodesOf,
  read,
} from './helpers/source.ts'

const features = ['jobs', 'leases', 'webhooks', 'health']
/** Files that compose others, and that nothing imports. */
const roots = ['app.ts', 'shared-parts.ts', 'server.ts', 'cli/key.ts']

// The exceptions. Each list may only shrink.

/** Encodes jobs under a placeholder that no key in Redis has. */
const placeholderKeys = ['bullmq/job-encoder.ts']

function offenders(isOffence: (found: Import) => boolean): string[] {
  return imports.filter(isOffence).map(({ from, to }) => `${from} → ${to}`)
}

/** `exceptions`: the violations that are known; exactly those may exist. */
function onlyExceptions(
  t: Test,
  violations: string[],
  exceptions: string[],
  what = 'only the exceptions',
): void {
  t.same([...new Set(violations)].sort(), [...exceptions].sort(), what)
}

t.test('the rules see imports, functions and scripts', async (t) => {
  const has = (from: string, to: string) => imports.some((found) => found.from === from && found.to === to)
  t.ok(has('app.ts', 'jobs/enqueue/feature.ts'))
  t.ok(has('redis/connection/connections.ts', 'ioredis'))
  t.ok(imports.some(({ from, to, typeOnly }) => from === 'feature.ts' && to === 'fastify' && typeOnly))
  t.ok(imports.some(({ from, to, typeOnly }) => from === 'app.ts' && to === 'lifecycle.ts' && !typeOnly))
  t.ok(functionLengths('app.ts').some(({ name, lines }) => name === 'createApp' && lines > 10))
  t.ok(luaFiles.length > 0)
})

t.test('features import neither each other nor http/', async (t) => {
  const bad = offenders(({ from, to }) => {
    const [own, other] = [folderOf(from), folderOf(to)]
    return features.includes(own) && other !== own && (features.includes(other) || other === 'http')
  })
  t.same(bad, [])
})

t.test(
  'dependencies point inwards: features → dispatch → events, queues → redis → bullmq → config, auth, errors, json',
  async (t) => {
    const rank: Record<string, number> = {
      json: 0,
      '': 0,
      cli: 0,
      config: 0,
      auth: 0,
      bullmq: 1,
      redis: 2,
      queues: 3,
      events: 3,
      dispatch: 4,
    }
    for (const feature of features) rank[feature] = 5
    // The shared parts that feature.ts names are of every rank; features import it.
    const rankOf = (file: string) => (file === 'feature.ts' ? 5 : (rank[folderOf(file)] ?? 9))
    const bad = offenders(({ from, to }) => {
      if (roots.includes(from) || folderOf(from) === 'http' || !to.endsWith('.ts')) return false
      return roots.includes(to) || rankOf(to) > rankOf(from)
    })
    t.same(bad, [])
    const domains = ['redis', 'queues', 'events', 'dispatch', ...features]
    t.same(
      offenders(({ from, to }) => folderOf(from) === 'http' && domains.includes(folderOf(to))),
      [],
      'http/ knows no domain',
    )
    t.same(
      offenders(
        ({ from, to }) => folderOf(from) === 'json' && /\.ts$/.test(to) && !/^(json\/|errors\.ts)/.test(to),
      ),
      [],
      'json/ knows only errors.ts',
    )
  },
)

t.test('feature.ts imports only types from features', async (t) => {
  const bad = offenders(
    ({ from, to, typeOnly }) => from === 'feature.ts' && features.includes(folderOf(to)) && !typeOnly,
  )
  t.same(bad, [])
})

t.test('no file is on an import cycle', async (t) => {
  t.equal(findCycle(), undefined)
})

t.test('only server, app, feature.ts, http/ and routes import fastify', async (t) => {
  const bad = offenders(
    ({ from, to }) =>
      /^@?fastify/.test(to) &&
      !['server.ts', 'app.ts', 'feature.ts'].includes(from) &&
      folderOf(from) !== 'http' &&
      !from.endsWith('routes.ts'),
  )
  t.same(bad, [])
})

t.test(
  'only redis/ imports ioredis, and only bullmq/, queues/ and dispatch/ import bullmq at runtime',
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

t.test('only redis/keyspace.ts builds a key', async (t) => {
  const spelling = allFiles.filter((file) => read(file).includes('::sluice'))
  t.same(spelling, ['redis/keyspace.ts'], 'keys of the service')
  const building = files.filter((file) =>
    nodesOf(file).some((node) => {
      if (!ts.isTemplateSpan(node)) return false
      const { expression, literal } = node
      const name = ts.isPropertyAccessExpression(expression) ? expression.name.text : expression.getText()
      return /prefix$/i.test(name) && literal.text.startsWith(':')
    }),
  )
  onlyExceptions(t, building, ['redis/keyspace.ts', ...placeholderKeys], 'keys that begin with QUEUE_PREFIX')
})

t.test('a script is loaded only by the TypeScript file of the same name beside it', async (t) => {
  const loads = files.flatMap((file) =>
    nodesOf(file).flatMap((node) => {
      if (!ts.isCallExpression(node) || !/^load(Script)?$/.test(node.expression.getText())) return []
      const [argument] = node.arguments
      return argument && ts.isStringLiteral(argument) ? [{ file, script: argument.text }] : []
    }),
  )
  const included = luaFiles.flatMap((file) =>
    [...read(file).matchAll(/^--@include ([\w/-]+)$/gm)].map(([, name]) => name!),
  )
  for (const file of luaFiles) {
    const name = file.replace(/^redis\/scripts\/|\.lua$/g, '')
    const isLoaded = loads.some(({ script }) => script === name)
    t.ok(isLoaded || included.includes(name), `${file} is loaded, or included by another script`)
  }
  const elsewhere = loads.filter(({ file, script }) => file !== `redis/scripts/${script}.ts`)
  t.same(
    elsewhere.map(({ file, script }) => `${file} loads ${script}`),
    [],
  )
})

t.test('only server.ts, cli/ and the files that spawn processes touch process', async (t) => {
  const bad = files.filter((file) => {
    const code = read(file).replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    return /\bprocess\.(env|exit|exitCode|on|argv|cwd|stdout|stderr)\b/.test(code)
  })
  t.same(bad.sort(), [
    'cli/key.ts',
    'redis/embedded/append-only-file.ts',
    'redis/embedded/embedded-redis.ts',
    'server.ts',
  ])
})

t.test('no file or folder is named after a kind of code', async (t) => {
  const bad = files.filter((file) =>
    /(^|\/)(utils?|types|services|controllers|helpers|common|models|index)(\/|\.ts$)/.test(file),
  )
  t.same(bad, [])
})

t.test('a folder holds at most 16 files; a script and its function count as one', async (t) => {
  const namesByFolder = new Map<string, Set<string>>()
  for (const file of allFiles) {
    const folder = file.slice(0, Math.max(0, file.lastIndexOf('/')))
    namesByFolder.set(folder, (namesByFolder.get(folder) ?? new Set()).add(nameOf(file)))
  }
  t.same(
    [...namesByFolder].filter(([, names]) => names.size > 16).map(([folder]) => folder),
    [],
  )
})

t.test('a file has at most 300 lines', async (t) => {
  const long = files.filter((file) => read(file).split('\n').length - 1 > 300)
  t.same(long, [])
})

t.test('a function has at most 100 lines', async (t) => {
  const long = files.flatMap((file) =>
    functionLengths(file)
      .filter(({ lines }) => lines > 100)
      .map(({ name }) => `${file} ${name}`),
  )
  t.same(long, [])
})

t.test('every file begins with a header comment', async (t) => {
  const headerless = files.filter((file) => !read(file).startsWith('/**'))
  t.same(headerless, [])
})

t.test('no module keeps mutable state', async (t) => {
  const mutable = files.filter((file) =>
    nodesOf(file).some(
      (node) =>
        ts.isVariableStatement(node) &&
        ts.isSourceFile(node.parent) &&
        !(node.declarationList.flags & ts.NodeFlags.Const),
    ),
  )
  t.same(mutable, [])
})

t.test('no object literal spreads an object literal', async (t) => {
  const spreading = files.filter((file) =>
    nodesOf(file).some(
      (node) => ts.isSpreadAssignment(node) && ts.isObjectLiteralExpression(node.expression),
    ),
  )
  t.same(spreading, [])
})

t.test('two different things never share an exported name', async (t) => {
  const owners = new Map<string, string[]>()
  for (const file of files)
    for (const name of new Set(exportedNames(file))) owners.set(name, [...(owners.get(name) ?? []), file])
  const shared = [...owners]
    .filter(([, own]) => own.length > 1)
    .map(([name, own]) => `${name}: ${own.join(', ')}`)
  t.same(shared, [])
})
