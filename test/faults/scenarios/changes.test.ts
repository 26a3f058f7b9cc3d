/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { changes } from './changes.ts'

await inShort(t, [changes])
