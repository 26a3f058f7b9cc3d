/**
 * Adds a check to a single route. Unlike a global hook, it is created once per route, so what depends on the route (its
 * scope) is not looked up for each request.
 */
import type { onRequestHookHandler, RouteOptions } from 'fastify'

/** Appends an onRequest hook to those that the route already has. */
export function addRouteGuard(route: RouteOptions, hook: onRequestHookHandler): void {
  route.onRequest = [route.onRequest ?? [], hook].flat()
}
