/** Runs once before all tests: gets a redis-server where there is none, so that no test file has to wait for it. */
import { findRedisBinary } from '../../src/redis/embedded/redis-binary.ts'

const { path, version } = await findRedisBinary({
  cacheDir: '.redis',
  path: process.env['PATH'] ?? '',
  onFetch: () => console.error('# fetching redis-server from the distribution (once)'),
})
console.error(`# redis-server ${version} at ${path}`)
