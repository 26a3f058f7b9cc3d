/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { redisAway, redisBack } from './redis-away.ts'

await inShort(t, [redisAway, redisBack])
