/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { secrets } from './secrets.ts'

await inShort(t, [secrets])
