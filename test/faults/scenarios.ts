/** All scenarios, in the order of the table. */
import type { Scenario } from './scenario.ts'
import { burst } from './scenarios/burst.ts'
import { changes } from './scenarios/changes.ts'
import { fileCut } from './scenarios/file-cut.ts'
import { overload, settlesOverloaded } from './scenarios/overload.ts'
import { receiversCrowd, receiversDribble } from './scenarios/receivers-dribble.ts'
import { redisAway, redisBack } from './scenarios/redis-away.ts'
import { redisFrozen } from './scenarios/redis-frozen.ts'
import { redisFull } from './scenarios/redis-full.ts'
import { redisKilled } from './scenarios/redis-killed.ts'
import { redisRefuses } from './scenarios/redis-refuses.ts'
import { repliesLost } from './scenarios/replies-lost.ts'
import { rollingRestart } from './scenarios/rolling-restart.ts'
import { secrets } from './scenarios/secrets.ts'
import { serviceKilled } from './scenarios/service-killed.ts'
import { soak } from './scenarios/soak.ts'
import { zombies } from './scenarios/zombies.ts'

export const scenarios: Scenario[] = [
  redisKilled,
  fileCut,
  serviceKilled,
  repliesLost,
  zombies,
  redisAway,
  redisBack,
  redisFrozen,
  rollingRestart,
  ...redisRefuses,
  overload,
  settlesOverloaded,
  redisFull,
  soak,
  burst,
  changes,
  receiversDribble,
  receiversCrowd,
  secrets,
]

/** Rows of the table that have no scenario, and why. */
export const missing: { id: string; fault: string; why: string }[] = [
  { id: 'D4', fault: 'failover (replica promoted, old master back)', why: 'not yet caused here' },
  {
    id: 'F3',
    fault: 'webhooks to addresses that are not the public internet (SSRF)',
    why: 'a test: test/webhooks/address-guard.test.ts',
  },
]
