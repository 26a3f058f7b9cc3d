/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { documents, refusals } from './unauthenticated.ts'

await runQuickTests(t, [documents, refusals])
