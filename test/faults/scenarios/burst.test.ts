/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { burst } from './burst.ts'

await inShort(t, [burst])
