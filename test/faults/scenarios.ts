/** All scenarios, in the order of the table. */
import { canRunNameServer } from './name-server.ts'
import type { Scenario } from './scenario.ts'
import { amplifiedReads } from './scenarios/amplified-reads.ts'
import { clockAhead, clockSteps } from './scenarios/clock-steps.ts'
import { concurrentReads } from './scenarios/concurrent-reads.ts'
import { floodingEndpoints } from './scenarios/flooding-endpoints.ts'
import { hangingNames } from './scenarios/hanging-names.ts'
import { noEvents } from './scenarios/no-events.ts'
import { overload, overloadSettles } from './scenarios/overload.ts'
import { pipelinedWaits, waitsOnManyQueues } from './scenarios/pipelined-waits.ts'
import { poisonedJobs } from './scenarios/poisoned-jobs.ts'
import { poisonedSubscriptions } from './scenarios/poisoned-subscriptions.ts'
import { redisBack, redisDown } from './scenarios/redis-down.ts'
import { redisErrors } from './scenarios/redis-errors.ts'
import { redisFrozen } from './scenarios/redis-frozen.ts'
import { redisFull } from './scenarios/redis-full.ts'
import { redisKilled } from './scenarios/redis-killed.ts'
import { repliesLost } from './scenarios/replies-lost.ts'
import { revokedKey } from './scenarios/revoked-key.ts'
import { rollingRestart } from './scenarios/rolling-restart.ts'
import { secretLeaks } from './scenarios/secret-leaks.ts'
import { serviceKilled } from './scenarios/service-killed.ts'
import { slowEndpoints, slowEndpointsSlots } from './scenarios/slow-endpoints.ts'
import { slowReaders } from './scenarios/slow-readers.ts'
import { soak } from './scenarios/soak.ts'
import { staleReads } from './scenarios/stale-reads.ts'
import { truncatedFile } from './scenarios/truncated-file.ts'
import { documents, refusals } from './scenarios/unauthenticated.ts'
import { zombies } from './scenarios/zombies.ts'

export const scenarios: Scenario[] = [
  redisKilled,
  truncatedFile,
  serviceKilled,
  repliesLost,
  zombies,
  redisDown,
  redisBack,
  redisFrozen,
  rollingRestart,
  ...redisErrors,
  overload,
  overloadSettles,
  redisFull,
  soak,
  concurrentReads,
  staleReads,
  slowEndpoints,
  slowEndpointsSlots,
  secretLeaks,
  amplifiedReads,
  slowReaders,
  pipelinedWaits,
  waitsOnManyQueues,
  poisonedJobs,
  poisonedSubscriptions,
  noEvents,
  clockSteps,
  clockAhead,
  ...(canRunNameServer() ? [hangingNames] : []),
  documents,
  refusals,
  floodingEndpoints,
  revokedKey,
]

/** Rows of the table without a scenario, and why. */
export const missing: { id: string; fault: string; why: string }[] = [
  ...(canRunNameServer()
    ? []
    : [{ id: hangingNames.id, fault: hangingNames.fault, why: 'needs root, for a name server of its own' }]),
  { id: 'D4', fault: 'failover (replica promoted, old master back)', why: 'not implemented yet' },
  {
    id: 'F3',
    fault: 'webhooks to addresses that are not the public internet (SSRF)',
    why: 'a test: test/webhooks/endpoints/address-guard.test.ts',
  },
]
