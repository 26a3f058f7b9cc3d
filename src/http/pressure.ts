/**
 * Rejects requests with 503 while the event loop lags, before any work is done for them: a client can use an immediate
 * 503, but not a response that arrives after its timeout. Health probes are exempt because they report this condition;
 * the scopes `work` and `manage` are exempt because they reduce the load. The documentation needs no key, so it comes last.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import fp from 'fastify-plugin'
import { REPEAT_LATER, SluiceError } from '../errors.ts'
import { DOCS } from './route-contract.ts'
import { addRouteGuard } from './route-guard.ts'

export interface PressureOptions {
  /** Mean lag over one sample above which requests are rejected, ms; 0 disables the check. */
  maxEventLoopDelayMs: number
}

const SAMPLE_MS = 250
/** Each measurement wakes the process. At 10 ms that alone cost an idle service half a percent of a core. */
const RESOLUTION_MS = 20

export const pressurePlugin = fp<PressureOptions>(async (app, { maxEventLoopDelayMs }) => {
  if (maxEventLoopDelayMs === 0) return
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  delays.enable()
  // Startup blocks the event loop too, without any load; ignore the first two samples.
  let enabledAt = Number.POSITIVE_INFINITY
  app.addHook('onReady', async () => {
    enabledAt = performance.now() + 2 * SAMPLE_MS
  })
  let lagMs = 0
  const sampling = setInterval(() => {
    // Nothing was measured: the event loop was blocked for the whole sample.
    lagMs = delays.count === 0 ? SAMPLE_MS : Math.max(0, delays.mean / 1e6 - RESOLUTION_MS)
    delays.reset()
  }, SAMPLE_MS)
  app.addHook('onClose', async () => {
    clearInterval(sampling)
    delays.disable()
  })

  app.addHook('onRoute', (route) => {
    const { scope = 'none' } = route.config ?? {}
    const isDocumentation = route.url.startsWith(DOCS) || route.url === '/openapi.json'
    if ((scope === 'none' && !isDocumentation) || scope === 'work' || scope === 'manage') return
    addRouteGuard(route, (_request, _reply, done) => {
      if (lagMs <= maxEventLoopDelayMs || performance.now() < enabledAt) return done()
      throw new SluiceError('OVERLOADED', {
        detail: `The service is short of CPU: its event loop lags by ${Math.round(lagMs)} ms. ${REPEAT_LATER}`,
        outcome: 'not_executed',
        retryAfterS: 1,
      })
    })
  })
})
