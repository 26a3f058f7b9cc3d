/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { rollingRestart } from './rolling-restart.ts'

await runQuickTests(t, [rollingRestart])
