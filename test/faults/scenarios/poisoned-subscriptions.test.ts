/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { poisonedSubscriptions } from './poisoned-subscriptions.ts'

await runQuickTests(t, [poisonedSubscriptions])
