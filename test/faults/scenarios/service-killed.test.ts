/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { serviceKilled } from './service-killed.ts'

await runQuickTests(t, [serviceKilled])
