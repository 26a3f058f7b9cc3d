/**
 * What every route owes: a scope (who may), an operationId (what a client would call it), a summary, tags and every
 * response it can give. The boot fails for a route that does not say so, since nobody can be refused what nobody declared.
 */
import fp from 'fastify-plugin'

export type Scope = 'none' | 'enqueue' | 'read' | 'work' | 'schedule' | 'manage'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Who may call it; `none`: anyone. */
    scope?: Scope
  }
}

export const contractPlugin = fp(async (app) => {
  app.addHook('onRoute', (route) => {
    // Pages of libraries (the documentation's own assets) are no part of the contract.
    if (route.schema?.hide) return
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
