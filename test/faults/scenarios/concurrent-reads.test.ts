/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { concurrentReads } from './concurrent-reads.ts'

await runQuickTests(t, [concurrentReads])
