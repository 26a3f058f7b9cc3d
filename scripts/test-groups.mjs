/**
 * Which test files share a process. Most of the time of a small test file is the start of its process, so such files are spread
 * over a few group files, which import them one after the other. A file that restarts servers, kills processes, waits for real
 * time to pass or generates thousands of cases has a process of its own, and is left out of the quick tests.
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Files and folders with processes of their own, by the start of their path. */
const ALONE = [
  'test/auth/key-ring.test.ts',
  'test/docs/shell-blocks.test.ts',
  'test/events/event-feeds.test.ts',
  'test/events/eventless-queue.test.ts',
  'test/examples.test.ts',
  'test/faults/',
  'test/fuzz/',
  'test/health/flood.test.ts',
  'test/health/script-probe.test.ts',
  'test/helpers/',
  'test/http/',
  'test/jobs/enqueue/conformance.test.ts',
  'test/jobs/enqueue/idempotency.test.ts',
  'test/jobs/routes.test.ts',
  'test/jobs/status/coherence',
  'test/jobs/status/event-bounds.test.ts',
  'test/jobs/status/event-routes.test.ts',
  'test/jobs/status/get-many.test.ts',
  'test/jobs/status/read-memory.test.ts',
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
  'test/webhooks/damaged-keys.test.ts',
  'test/webhooks/delivery/delivery-worker.test.ts',
  'test/webhooks/delivery/hanging-key.test.ts',
  'test/webhooks/example.test.ts',
]
const FOLDER = '.tap/groups'

/** Writes `count` group files, and returns their paths and those of the files with processes of their own. */
export function groupTestFiles(count) {
  const files = readdirSync('test', { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => file.endsWith('.test.ts'))
    .sort()
  const isAlone = (file) => ALONE.some((start) => file.startsWith(start))
  const together = files.filter((file) => !isAlone(file))
  mkdirSync(FOLDER, { recursive: true })
  const groups = Array.from({ length: count }, (_, index) => {
    const own = together.filter((_file, at) => at % count === index)
    const path = join(FOLDER, `group-${index + 1}-of-${count}.test.ts`)
    writeFileSync(path, own.map((file) => `await import('../../${file}')\n`).join(''))
    return path
  })
  return { groups, alone: files.filter(isAlone) }
}
