/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { truncatedFile } from './truncated-file.ts'

await runQuickTests(t, [truncatedFile])
