/**
 * Rejects requests with 503 while the event loop lags, before any work is done for them: a client can use an immediate
 * 503, but not a response that arrives after its timeout. Health probes are exempt because they report this condition;
 * the scopes `work` and `manage` are exempt because they reduce the load. The documentation needs no key, so it comes last.
 */
import underPressure from '@fastify/under-pressure'
import fp from 'fastify-plugin'
import { REPEAT_LATER, SluiceError } from '../errors.ts'
import { DOCS } from './route-contract.ts'
import { addRouteGuard } from './route-guard.ts'

export interface PressureOptions {
  /** Mean lag over one sample above which requests are rejected, ms; 0 disables the check. */
  maxEventLoopDelayMs: number
}

const SAMPLE_MS = 250

export const pressurePlugin = fp<PressureOptions>(async (app, { maxEventLoopDelayMs }) => {
  if (maxEventLoopDelayMs === 0) return
  // Without limits of its own, under-pressure only measures.
  await app.register(underPressure, { sampleInterval: SAMPLE_MS })
  // Startup blocks the event loop too, without any load; ignore the first two samples.
  let enabledAt = Number.POSITIVE_INFINITY
  app.addHook('onReady', async () => {
    enabledAt = performance.now() + 2 * SAMPLE_MS
  })
  let lagMs = 0
  const sampling = setInterval(() => {
    lagMs = app.memoryUsage().eventLoopDelay
  }, SAMPLE_MS)
  app.addHook('onClose', async () => clearInterval(sampling))

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
