/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { zombies } from './zombies.ts'

await inShort(t, [zombies])
