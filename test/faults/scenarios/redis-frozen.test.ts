/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { redisFrozen } from './redis-frozen.ts'

await runQuickTests(t, [redisFrozen])
