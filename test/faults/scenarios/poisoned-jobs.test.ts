/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { poisonedJobs } from './poisoned-jobs.ts'

await runQuickTests(t, [poisonedJobs])
