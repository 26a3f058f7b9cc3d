/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { receiversCrowd } from './receivers-dribble.ts'

await inShort(t, [receiversCrowd])
