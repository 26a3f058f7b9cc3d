/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { redisRefuses } from './redis-refuses.ts'

await inShort(t, redisRefuses)
