/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { staleReads } from './stale-reads.ts'

await runQuickTests(t, [staleReads])
