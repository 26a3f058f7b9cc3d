/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { noEvents } from './no-events.ts'

await runQuickTests(t, [noEvents])
