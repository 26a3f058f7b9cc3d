/** Runs once before all tests: fetches a redis-server where none is installed, so that no test file waits for it. */
import { findRedisBinary } from '../../src/redis/embedded/redis-binary.ts'

const { path, version } = await findRedisBinary({
  cacheDir: '.redis',
  path: process.env['PATH'] ?? '',
  onFetch: () => console.error('# fetching redis-server from the distribution (once)'),
})
console.error(`# redis-server ${version} at ${path}`)
