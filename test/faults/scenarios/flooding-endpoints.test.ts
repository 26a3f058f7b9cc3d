/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { floodingEndpoints } from './flooding-endpoints.ts'

await runQuickTests(t, [floodingEndpoints])
