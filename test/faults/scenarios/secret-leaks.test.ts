/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { secretLeaks } from './secret-leaks.ts'

await runQuickTests(t, [secretLeaks])
