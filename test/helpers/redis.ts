/** A real redis-server for a test file. Each test uses a prefix of its own, so that no test sees another's keys. */
export { type PrivateRedis as TestRedis, startRedis } from '../../load/private-redis.ts'

let prefixes = 0

/** A key prefix that no other test of this run uses. */
export function uniquePrefix(): string {
  return `t${process.pid}-${prefixes++}`
}
