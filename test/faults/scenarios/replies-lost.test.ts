/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { repliesLost } from './replies-lost.ts'

await inShort(t, [repliesLost])
