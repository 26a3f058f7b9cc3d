/** The scenario with small numbers; see in-short.ts. */
import t from 'tap'
import { inShort } from '../in-short.ts'
import { redisKilled } from './redis-killed.ts'

await inShort(t, [redisKilled])
