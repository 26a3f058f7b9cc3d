/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { redisFull } from './redis-full.ts'

await inShort(t, [redisFull])
