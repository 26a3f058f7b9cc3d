/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { runQuickTests } from '../quick-tests.ts'
import { slowReaders } from './slow-readers.ts'

await runQuickTests(t, [slowReaders])
