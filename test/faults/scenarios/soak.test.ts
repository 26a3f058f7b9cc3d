/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { soak } from './soak.ts'

await runQuickTests(t, [soak])
