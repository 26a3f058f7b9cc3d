/**
 * Composition root: the ordered list of features, made of the shared parts (shared-parts.ts). lifecycle.ts runs the ends of
 * all parts in reverse.
 */
import type { FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import type { Config } from './config/schema.ts'
import { type Feature, type FeatureDefinition, type SharedParts, selectFeatures } from './feature.ts'
import { healthFeature } from './health/feature.ts'
import { createHttpServer, registerHttpPlugins } from './http/http-server.ts'
import { createHttpStats } from './http/http-stats.ts'
import { enqueueFeature } from './jobs/enqueue/feature.ts'
import { eventFeature } from './jobs/status/event-feature.ts'
import { statusFeature } from './jobs/status/feature.ts'
import { leaseFeature } from './leases/feature.ts'
import { createLifecycle, type Lifecycle } from './lifecycle.ts'
import type { RedisAddress } from './redis/connection/redis-address.ts'
import { createSharedParts } from './shared-parts.ts'
import { webhookFeature } from './webhooks/feature.ts'

/** The features, in the order in which their routes are documented. Health comes last, since it reports on the others. */
export const featureDefinitions: readonly FeatureDefinition[] = [
  enqueueFeature,
  statusFeature,
  eventFeature,
  leaseFeature,
  webhookFeature,
  healthFeature,
]

export interface App {
  http: FastifyInstance
  /** Whether any API key exists, so that the service may be reachable from other machines. */
  requiresKey(): boolean
  /** From now on `/health/ready` responds with 503; every other route is served as before. */
  drain(): void
}

/** Builds the service; nothing listens yet. Also succeeds while Redis is unavailable, and connects once it is back. */
export async function createApp(config: Config, address: RedisAddress, log: Logger): Promise<App> {
  const definitions = selectFeatures(featureDefinitions, config.FEATURES_DISABLED)
  const lifecycle = createLifecycle()
  const { http, guards } = createHttpServer(config, log)
  http.addHook('preClose', () => lifecycle.stop())
  http.addHook('onClose', () => lifecycle.close())
  try {
    const parts = await createSharedParts(config, address, log, lifecycle)
    const { keyRing, turns, version } = parts
    const usesEventStreams = definitions.some((definition) => definition.usesEventStreams)
    const options = { ...guards, config, log, keyRing, turns, version, usesEventStreams }
    const waits = await registerHttpPlugins(http, options)
    const features = createFeatures(definitions, parts, lifecycle, { stats: createHttpStats(guards, waits) })
    for (const feature of features) await feature.routes?.(http)
    startWhenReady(http, features, parts)
    return { http, requiresKey: keyRing.requiresKey, drain: lifecycle.drain }
  } catch (error) {
    await http.close()
    throw error
  }
}

/** `server`: what the HTTP server reports, as the first feature. */
function createFeatures(
  definitions: readonly FeatureDefinition[],
  parts: SharedParts,
  { onStop, onClose }: Lifecycle,
  server: Feature,
): Feature[] {
  const features: Feature[] = [server]
  for (const { create } of definitions) {
    const feature = create(parts, [...features])
    if (feature.stop) onStop(feature.stop)
    if (feature.close) onClose(feature.close)
    features.push(feature)
  }
  return features
}

/** Starts the features once the service is ready to serve, and again each time Redis becomes usable. */
function startWhenReady(http: FastifyInstance, features: Feature[], { connections }: SharedParts): void {
  const start = () => {
    if (!connections.admin.ready) return
    for (const feature of features) feature.start?.()
  }
  connections.onChange(start)
  http.addHook('onReady', async () => start())
}
