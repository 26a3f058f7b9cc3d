/**
 * As many requests as a key's rate allows, in windows of fixed length, counted in this process: asking Redis for each would
 * cost more than most requests do. (`@fastify/rate-limit` awaits three promises for a count: 4 µs, a quarter of a hot read.)
 * Told in `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10). A key without a rate is not counted.
 */
import fp from 'fastify-plugin'
import type { Rate } from '../auth/access.ts'
import { SluiceError } from '../errors.ts'
import { addRouteGuard } from './route-guard.ts'

interface Window {
  endsAt: number
  count: number
  /** For `RateLimit-Policy`. */
  policy: string
}

export const rateLimitPlugin = fp(async (app) => {
  /** A key has the same rate until it is changed in its file, and then another window. */
  const windows = new WeakMap<Rate, Window>()

  function count(rate: Rate, now: number): Window {
    let window = windows.get(rate)
    if (!window || window.endsAt <= now) {
      const { max, windowMs } = rate
      const policy = `"key";q=${max};w=${Math.ceil(windowMs / 1_000)}`
      window = { endsAt: now + windowMs, count: 0, policy }
      windows.set(rate, window)
    }
    window.count++
    return window
  }

  app.addHook('onRoute', (route) => {
    addRouteGuard(route, (request, reply, done) => {
      const { rate, keyId } = request.access
      if (rate === undefined) return done()
      const now = performance.now()
      const window = count(rate, now)
      const leftS = Math.ceil((window.endsAt - now) / 1_000)
      reply.header('ratelimit-policy', window.policy)
      reply.header('ratelimit', `"key";r=${Math.max(0, rate.max - window.count)};t=${leftS}`)
      if (window.count <= rate.max) return done()
      throw new SluiceError('RATE_LIMITED', {
        detail: `The key ${keyId} may send ${rate.max} requests in ${rate.windowMs / 1_000} s. Repeat after Retry-After.`,
        outcome: 'not_executed',
        retryAfterS: leftS,
      })
    })
  })
})
