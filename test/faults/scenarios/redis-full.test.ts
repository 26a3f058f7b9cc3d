/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { redisFull } from './redis-full.ts'

await runQuickTests(t, [redisFull])
