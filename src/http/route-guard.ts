/**
 * Adds a check to a single route. Unlike a global hook, the check is created once per route, so it need not look up the
 * route's scope for each request.
 */
import type { onRequestHookHandler, RouteOptions } from 'fastify'

/** Appends an onRequest hook to those that the route already has. */
export function addRouteGuard(route: RouteOptions, hook: onRequestHookHandler): void {
  route.onRequest = [route.onRequest ?? [], hook].flat()
}
