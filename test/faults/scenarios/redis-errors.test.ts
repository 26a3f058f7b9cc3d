/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { redisErrors } from './redis-errors.ts'

await runQuickTests(t, redisErrors)
