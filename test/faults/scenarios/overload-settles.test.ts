/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { overloadSettles } from './overload.ts'

await runQuickTests(t, [overloadSettles])
