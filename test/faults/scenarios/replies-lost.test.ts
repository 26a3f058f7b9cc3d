/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { repliesLost } from './replies-lost.ts'

await runQuickTests(t, [repliesLost])
