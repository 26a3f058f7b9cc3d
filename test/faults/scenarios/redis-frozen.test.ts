/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { redisFrozen } from './redis-frozen.ts'

await inShort(t, [redisFrozen])
