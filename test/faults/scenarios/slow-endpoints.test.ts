/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { slowEndpoints } from './slow-endpoints.ts'

await runQuickTests(t, [slowEndpoints])
