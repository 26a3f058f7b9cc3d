/**
 * While the event loop lags, a request is refused before anything is done for it: 503 at once is worth more to its sender
 * than an answer after its patience. Probes are let through, since they ask about just this, and so is whatever frees work.
 */
import underPressure from '@fastify/under-pressure'
import fp from 'fastify-plugin'
import { SluiceError } from '../errors.ts'

export interface PressureOptions {
  /** Mean lag over a sample past which requests are refused, ms; 0: never. */
  maxEventLoopDelayMs: number
}

const SAMPLE_MS = 250

export const pressurePlugin = fp<PressureOptions>(async (app, { maxEventLoopDelayMs }) => {
  // What is put together at the start holds the loop as well, and says nothing of the load.
  let armedAt = Number.POSITIVE_INFINITY
  app.addHook('onReady', async () => {
    armedAt = performance.now() + 2 * SAMPLE_MS
  })
  await app.register(underPressure, {
    sampleInterval: SAMPLE_MS,
    maxEventLoopDelay: maxEventLoopDelayMs,
    pressureHandler(request, _reply, _type, value) {
      const { scope = 'none' } = request.routeOptions.config
      if (scope === 'none' || scope === 'work' || scope === 'manage' || performance.now() < armedAt) return
      throw new SluiceError('OVERLOADED', {
        detail: `The process is short of CPU: its event loop lags by ${Math.round(value ?? 0)} ms. Repeat after Retry-After.`,
        outcome: 'not_executed',
        retryAfterS: 1,
      })
    },
  })
})
