/** The stats that features provide, as properties of GET /stats and GET /health: their schemas, values and visibility. */
import type { TSchema } from 'typebox'
import type { Access } from '../auth/access.ts'
import type { Feature, FeatureStat } from '../feature.ts'
import type { FeatureStats } from './health-responses.ts'
import { ownOf, seenBy } from './visibility.ts'

export type NamedStats = [name: string, stat: FeatureStat][]

/** In the order of the features. Throws when two features use one name. */
export function collectStats(features: readonly Feature[]): NamedStats {
  const stats = features.flatMap((feature) => Object.entries(feature.stats ?? {}))
  const names = stats.map(([name]) => name)
  const duplicate = names.find((name, index) => names.indexOf(name) !== index)
  if (duplicate !== undefined) throw new Error(`Two features provide the stat ${duplicate}`)
  return stats
}

export function healthStats(stats: NamedStats): NamedStats {
  return stats.filter(([, { isInHealth }]) => isInHealth)
}

export function schemasOf(stats: NamedStats): Record<string, TSchema> {
  return Object.fromEntries(stats.map(([name, { schema }]) => [name, schema]))
}

export function readStats(stats: NamedStats): FeatureStats {
  return Object.fromEntries(stats.map(([name, stat]) => [name, stat.read()]))
}

/** `values` (readStats) without the queues and keys that the caller may not see. */
export function statsFor(access: Access, stats: NamedStats, values: FeatureStats): FeatureStats {
  return Object.fromEntries(stats.map(([name, stat]) => [name, withoutHidden(access, values[name], stat)]))
}

function withoutHidden(access: Access, value: unknown, stat: FeatureStat): unknown {
  const { keyedByQueue = [], keyedByKey = [] } = stat
  if (keyedByQueue.length === 0 && keyedByKey.length === 0) return value
  const visible = { ...(value as Record<string, Record<string, unknown>>) }
  for (const property of keyedByQueue) visible[property] = seenBy(access, visible[property]!)
  for (const property of keyedByKey) visible[property] = ownOf(access, visible[property]!)
  return visible
}
