/** The scenarios of `npm run load`, in the order in which they run. */
import { burst } from './scenarios/burst.ts'
import { claims } from './scenarios/claims.ts'
import { single } from './scenarios/enqueue.ts'
import { guards } from './scenarios/guards.ts'
import { idle } from './scenarios/idle.ts'
import { mixed } from './scenarios/mixed.ts'
import { overload } from './scenarios/overload.ts'
import { batch } from './scenarios/payloads/batches.ts'
import { largeBodies } from './scenarios/payloads/large-bodies.ts'
import { leasePayloads } from './scenarios/payloads/leases.ts'
import { payloads } from './scenarios/payloads/single-jobs.ts'
import { pollers } from './scenarios/pollers.ts'
import { pull } from './scenarios/pull.ts'
import { push } from './scenarios/push.ts'
import { cold, hot } from './scenarios/read.ts'
import type { Scenario } from './scenarios/scenario.ts'
import { soak } from './scenarios/soak.ts'
import { waiters } from './scenarios/waiters.ts'
import { idleWorkers, wakeUp } from './scenarios/wake-up.ts'

export const scenarios: Scenario[] = [
  single,
  payloads,
  batch,
  largeBodies,
  hot,
  cold,
  mixed,
  guards,
  overload,
  burst,
  pollers,
  waiters,
  idle,
  pull,
  leasePayloads,
  wakeUp,
  idleWorkers,
  push,
  soak,
  claims,
]
