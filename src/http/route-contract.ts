/**
 * What every route owes: a scope (who may), an operationId (what a client would call it), a summary, tags and every
 * response it can give. The boot fails for a route that does not say so, since nobody can be refused what nobody declared.
 */
import fp from 'fastify-plugin'
import type { Scope } from '../auth/access.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may call it; `none`: anyone. */
    scope?: Scope | 'none'
  }
}

/** Where the documentation is served. */
export const DOCS = '/docs'

export const routeContractPlugin = fp(async (app) => {
  app.addHook('onRoute', (route) => {
    // The documentation's own pages, which a library serves, are no part of the contract. They show nothing but that.
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
