/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { revokedKey } from './revoked-key.ts'

await runQuickTests(t, [revokedKey])
