/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { fileCut } from './file-cut.ts'

await inShort(t, [fileCut])
