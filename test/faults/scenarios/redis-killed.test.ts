/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { redisKilled } from './redis-killed.ts'

await runQuickTests(t, [redisKilled])
