/**
 * Calls inspect-streams.lua: the state of up to a hundred event streams, the flush marker, and Redis' clock.
 */
import { randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import type { StreamFacts } from '../streams/stream-position.ts'
import { loadScript, runScript } from './run-script.ts'

export interface StreamInspection {
  /**
   * Value of the flush marker. Another value means that the database was flushed. `undefined`: it cannot be
   * written.
   */
  epoch: string | undefined
  /** Redis' clock, ms since 1970. */
  redisMs: number
  /** One for each stream, in the order of the request. */
  streams: StreamFacts[]
}

type RawFacts = [kind: 'none' | 'other'] | [kind: 'stream', string, string, number, number]

const script = loadScript('inspect-streams')

/** Creates the flush marker if it is missing. One command; rejects as Redis does. */
export async function inspectStreams(
  client: Redis,
  flushMarker: string,
  streams: string[],
): Promise<StreamInspection> {
  const reply = await runScript(client, script, [flushMarker, ...streams], [randomUUID()])
  const [epoch, redisMs, facts] = reply as [string, number, RawFacts[]]
  return { epoch: epoch === '' ? undefined : epoch, redisMs, streams: facts.map(toStreamFacts) }
}

function toStreamFacts(raw: RawFacts): StreamFacts {
  if (raw[0] !== 'stream') return { kind: raw[0] }
  const [kind, firstId, lastId, length, added] = raw
  return { kind, firstId: firstId === '' ? undefined : firstId, lastId, length, added }
}
