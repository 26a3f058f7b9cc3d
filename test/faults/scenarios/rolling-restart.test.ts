/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { rollingRestart } from './rolling-restart.ts'

await inShort(t, [rollingRestart])
