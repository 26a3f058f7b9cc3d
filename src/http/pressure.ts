/**
 * While the event loop lags, a request is refused before anything is done for it: 503 at once is worth more to its sender
 * than an answer after its patience. Probes are let through, since they ask about just this, and so is whatever frees work.
 */
import underPressure from '@fastify/under-pressure'
import fp from 'fastify-plugin'
import { SluiceError } from '../errors.ts'
import { addRouteGuard } from './route-guard.ts'

export interface PressureOptions {
  /** Mean lag over a sample past which requests are refused, ms; 0: never. */
  maxEventLoopDelayMs: number
}

const SAMPLE_MS = 250

export const pressurePlugin = fp<PressureOptions>(async (app, { maxEventLoopDelayMs }) => {
  if (maxEventLoopDelayMs === 0) return
  // Without limits of its own it only measures.
  await app.register(underPressure, { sampleInterval: SAMPLE_MS })
  // What is put together at the start holds the loop as well, and says nothing of the load.
  let armedAt = Number.POSITIVE_INFINITY
  app.addHook('onReady', async () => {
    armedAt = performance.now() + 2 * SAMPLE_MS
  })
  let lagMs = 0
  const sampling = setInterval(() => {
    lagMs = app.memoryUsage().eventLoopDelay
  }, SAMPLE_MS)
  app.addHook('onClose', async () => clearInterval(sampling))

  app.addHook('onRoute', (route) => {
    const { scope = 'none' } = route.config ?? {}
    if (scope === 'none' || scope === 'work' || scope === 'manage') return
    addRouteGuard(route, (_request, _reply, done) => {
      if (lagMs <= maxEventLoopDelayMs || performance.now() < armedAt) return done()
      throw new SluiceError('OVERLOADED', {
        detail: `The process is short of CPU: its event loop lags by ${Math.round(lagMs)} ms. Repeat after Retry-After.`,
        outcome: 'not_executed',
        retryAfterS: 1,
      })
    })
  })
})
