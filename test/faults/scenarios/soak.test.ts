/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { soak } from './soak.ts'

await inShort(t, [soak])
