/**
 * Requires every route to declare a scope, an operationId, a summary, tags and all its responses. The service does not
 * boot otherwise, because a route without a scope would be open to everyone.
 */
import fp from 'fastify-plugin'
import type { Scope } from '../auth/access.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The scope that an API key needs to call the route; `none`: no key is needed. */
    scope?: Scope | 'none'
  }
}

/** Path of the interactive documentation. */
export const DOCS = '/docs'

export const routeContractPlugin = fp(async (app) => {
  app.addHook('onRoute', (route) => {
    // The pages of the documentation come from a library and show only the public document.
    if (route.schema?.hide && route.url.startsWith(DOCS)) return
    const missing = [
      route.config?.scope ? '' : 'config.scope',
      route.schema?.operationId ? '' : 'schema.operationId',
      route.schema?.summary ? '' : 'schema.summary',
      route.schema?.tags?.length ? '' : 'schema.tags',
      route.schema?.response ? '' : 'schema.response',
    ].filter((name) => name !== '')
    if (missing.length === 0) return
    throw new Error(
      `Route ${[route.method].flat().join(',')} ${route.url} does not declare ${missing.join(', ')}`,
    )
  })
})
