/**
 * A real redis-server for a test file. Each test takes a prefix of its own, so that none sees another's keys.
 */
export { type PrivateRedis as TestRedis, startRedis } from '../../load/private-redis.ts'

let prefixes = 0

/** A key prefix that no other test of this run has. */
export function uniquePrefix(): string {
  return `t${process.pid}-${prefixes++}`
}
