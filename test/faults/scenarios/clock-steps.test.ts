/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { clockAhead, clockSteps } from './clock-steps.ts'

await runQuickTests(t, [clockSteps, clockAhead])
