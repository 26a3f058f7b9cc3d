/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { settlesOverloaded } from './overload.ts'

await inShort(t, [settlesOverloaded])
