/** The feature `leases`: HTTP workers take, settle and extend jobs. Optional. */
import type { FeatureDefinition } from '../feature.ts'
import { createLeaseItems } from './lease-items.ts'
import { createLeaseLimit } from './lease-limit.ts'
import { createLeaseRenderer } from './lease-response.ts'
import { createLeaseSettler } from './lease-settler.ts'
import { createLeaseSealer } from './lease-token.ts'
import { leaseRoutes } from './routes.ts'
import { ExtendEnvelope, SettleEnvelope } from './schemas.ts'

export const leaseFeature: FeatureDefinition = {
  name: 'leases',
  isOptional: true,
  create({
    config,
    secrets,
    redisClock,
    dispatcher,
    workerCommands,
    stalledRecovery,
    statusCache,
    createBodyValidator,
  }) {
    const sealer = createLeaseSealer(secrets)
    return {
      async routes(http) {
        await http.register(leaseRoutes, {
          dispatcher,
          settler: createLeaseSettler({
            commands: workerCommands,
            dispatcher,
            sealer,
            onWrite: statusCache.forget,
          }),
          items: createLeaseItems(),
          validators: {
            settle: createBodyValidator(SettleEnvelope),
            extend: createBodyValidator(ExtendEnvelope),
          },
          limits: { bodyMaxBytes: config.BATCH_BODY_LIMIT, itemMaxBytes: config.BODY_LIMIT },
          clock: redisClock,
          whyUnsettleable: createLeaseLimit(sealer, config.BODY_LIMIT),
          renderJobs: createLeaseRenderer(sealer, stalledRecovery.noteLeased),
        })
      },
    }
  },
}
