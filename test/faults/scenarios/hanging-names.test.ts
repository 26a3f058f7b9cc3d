/** The scenario with small numbers; see quick-tests.ts. */
import t from 'tap'
import { canRunNameServer } from '../name-server.ts'
import { runQuickTests } from '../quick-tests.ts'
import { hangingNames } from './hanging-names.ts'

if (canRunNameServer()) await runQuickTests(t, [hangingNames])
else t.plan(0, 'needs root, to start a service with a name server of its own')
