/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { zombies } from './zombies.ts'

await runQuickTests(t, [zombies])
