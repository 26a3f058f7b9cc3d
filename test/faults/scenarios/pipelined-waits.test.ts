/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { pipelinedWaits, waitsOnManyQueues } from './pipelined-waits.ts'

await runQuickTests(t, [pipelinedWaits, waitsOnManyQueues])
