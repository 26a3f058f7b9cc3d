/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { amplifiedReads } from './amplified-reads.ts'

await runQuickTests(t, [amplifiedReads])
