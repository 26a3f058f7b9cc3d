/**
 * As many requests as a key's rate allows, counted in this process: asking Redis for each would cost more than most
 * requests do. Told in `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10). A key without a
 * rate is not counted.
 */
import rateLimit from '@fastify/rate-limit'
import fp from 'fastify-plugin'
import { SluiceError } from '../errors.ts'
import type { Rate } from '../keys/access.ts'

export const rateLimitPlugin = fp(async (app) => {
  await app.register(rateLimit, { global: false })
  const count = app.createRateLimit({
    keyGenerator: ({ access }) => access.keyId,
    max: ({ access }) => access.rate!.max,
    timeWindow: ({ access }) => access.rate!.windowMs,
  })

  app.addHook('onRequest', (request, reply, done) => {
    const { rate, keyId } = request.access
    if (rate === undefined) return done()
    count(request).then((counted) => {
      // `isAllowed` is for callers on a list of exceptions, of which there is none.
      if (counted.isAllowed) return done()
      const { remaining, ttlInSeconds, isExceeded } = counted
      reply.header('ratelimit-policy', policyOf(rate))
      reply.header('ratelimit', `"key";r=${remaining};t=${ttlInSeconds}`)
      if (!isExceeded) return done()
      const detail = `The key ${keyId} may send ${rate.max} requests in ${rate.windowMs / 1_000} s. Repeat after Retry-After.`
      done(new SluiceError('RATE_LIMITED', { detail, outcome: 'not_executed', retryAfterS: ttlInSeconds }))
    }, done)
  })
})

const policyOf = ({ max, windowMs }: Rate) => `"key";q=${max};w=${Math.ceil(windowMs / 1_000)}`
