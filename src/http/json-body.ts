/**
 * The only body parser: JSON in UTF-8, nested at most 64 levels deep, without keys that could reach a prototype. The values
 * that the shape of the route names stay text.
 */
import fp from 'fastify-plugin'
import type { BodyShape } from '../json/body-shape.ts'
import { createJsonScanner } from '../json/json-scanner.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Which values of the body stay text. Without it, all of them are parsed. */
    bodyShape?: BodyShape
  }
}

/** Levels that a body, or an independent item of it, may be nested. */
export const MAX_DEPTH = 64

export const jsonBodyPlugin = fp(async (app) => {
  const scanner = createJsonScanner({ maxDepth: MAX_DEPTH })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
    try {
      done(null, scanner.scan(body as Buffer, request.routeOptions.config.bodyShape))
    } catch (error) {
      done(error as Error)
    }
  })
})
