/**
 * `npm run test:quick`: the unit and contract tests, in less than a minute on two cores. Left out is what restarts servers,
 * kills processes, waits for real time to pass or generates thousands of cases; `npm test` runs everything.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

/** Files and folders, by the start of their path. */
const SLOW = [
  'test/docs/shell-blocks.test.ts',
  'test/events/event-feeds.test.ts',
  'test/examples.test.ts',
  'test/faults/scenarios/',
  'test/fuzz/',
  'test/http/',
  'test/jobs/enqueue/conformance.test.ts',
  'test/jobs/status/coherence',
  'test/jobs/status/waiting/waiters.test.ts',
  'test/leases/',
  'test/redis/acl/',
  'test/redis/connection/tls.test.ts',
  'test/redis/embedded/',
  'test/redis/gateway/outage.test.ts',
  'test/redis/gateway/replication.test.ts',
  'test/redis/streams/stream-reader',
  'test/server.test.ts',
  'test/webhooks/delivery/delivery-worker.test.ts',
  'test/webhooks/example.test.ts',
]

const files = readdirSync('test', { recursive: true, withFileTypes: true })
  .map((entry) => join(entry.parentPath, entry.name))
  .filter((file) => file.endsWith('.test.ts') && !SLOW.some((start) => file.startsWith(start)))
  .sort()
const { status } = spawnSync(process.execPath, ['node_modules/tap/dist/esm/run.mjs', ...files], {
  stdio: 'inherit',
})
process.exitCode = status ?? 1
