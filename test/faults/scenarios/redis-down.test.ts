/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { redisBack, redisDown } from './redis-down.ts'

await runQuickTests(t, [redisDown, redisBack])
