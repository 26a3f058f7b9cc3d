/**
 * A check before a route: one hook of that route rather than one of all, so that what depends on the route (its scope) is
 * known when it is made, and not looked up for each request.
 */
import type { onRequestHookHandler, RouteOptions } from 'fastify'

/** Adds a hook that runs after those that the route has already. */
export function addRouteGuard(route: RouteOptions, hook: onRequestHookHandler): void {
  route.onRequest = [route.onRequest ?? [], hook].flat()
}
