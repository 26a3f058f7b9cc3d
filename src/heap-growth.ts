/**
 * Bounds the garbage in the heap. By default V8 lets the heap grow to several times what is in use before it collects: what a
 * service with hundreds of requests in flight leaves there is garbage. The price is more collections, mostly in the background.
 */
import { setFlagsFromString } from 'node:v8'

/** How much the heap may grow after a collection, percent. */
const GROWTH = 30

/** For the whole process, from now on. */
export function limitHeapGrowth(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH}`)
}
