/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { serviceKilled } from './service-killed.ts'

await inShort(t, [serviceKilled])
