/** The scenarios of `npm run load`, in the order in which they run. */
import { burst } from './scenarios/burst.ts'
import { claims } from './scenarios/claims.ts'
import { batch, payloads, single } from './scenarios/enqueue.ts'
import { guards } from './scenarios/guards.ts'
import { idle } from './scenarios/idle.ts'
import { mixed } from './scenarios/mixed.ts'
import { overload } from './scenarios/overload.ts'
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
  wakeUp,
  idleWorkers,
  push,
  soak,
  claims,
]
