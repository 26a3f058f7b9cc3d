/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { slowEndpointsSlots } from './slow-endpoints.ts'

await runQuickTests(t, [slowEndpointsSlots])
