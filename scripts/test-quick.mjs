/**
 * `npm run test:quick`: the unit and contract tests, in less than a minute on two cores. Left out is what restarts servers,
 * kills processes, waits for real time to pass or generates thousands of cases; `npm test` runs everything.
 *
 * Most of the time of a small test file is the start of its process. So the files are spread over two entry files, which
 * import them one after the other; tap runs the two at the same time.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Files and folders, by the start of their path. */
const SLOW = [
  'test/auth/key-ring.test.ts',
  'test/docs/shell-blocks.test.ts',
  'test/events/event-feeds.test.ts',
  'test/examples.test.ts',
  'test/faults/',
  'test/fuzz/',
  'test/health/flood.test.ts',
  'test/helpers/',
  'test/http/',
  'test/jobs/enqueue/conformance.test.ts',
  'test/jobs/enqueue/idempotency.test.ts',
  'test/jobs/routes.test.ts',
  'test/jobs/status/coherence',
  'test/jobs/status/event-routes.test.ts',
  'test/jobs/status/get-many.test.ts',
  'test/jobs/status/waiting/waiters.test.ts',
  'test/leases/',
  'test/queues/routes.test.ts',
  'test/redis/acl/',
  'test/redis/connection/tls.test.ts',
  'test/redis/embedded/',
  'test/redis/gateway/memory-guard.test.ts',
  'test/redis/gateway/outage.test.ts',
  'test/redis/gateway/replication.test.ts',
  'test/redis/streams/stream-reader',
  'test/server.test.ts',
  'test/webhooks/delivery/delivery-worker.test.ts',
  'test/webhooks/example.test.ts',
]
const ENTRIES = 2
const FOLDER = '.tap/quick'

const files = readdirSync('test', { recursive: true, withFileTypes: true })
  .map((entry) => join(entry.parentPath, entry.name))
  .filter((file) => file.endsWith('.test.ts') && !SLOW.some((start) => file.startsWith(start)))
  .sort()
mkdirSync(FOLDER, { recursive: true })
const entries = Array.from({ length: ENTRIES }, (_, index) => {
  const own = files.filter((_file, at) => at % ENTRIES === index)
  const path = join(FOLDER, `part-${index + 1}.test.ts`)
  writeFileSync(path, own.map((file) => `await import('../../${file}')\n`).join(''))
  return path
})
const { status } = spawnSync(process.execPath, ['node_modules/tap/dist/esm/run.mjs', ...entries], {
  stdio: 'inherit',
})
process.exitCode = status ?? 1
