/** The whole service in this process, on the Redis of the test and a prefix of its own. `inject` sends requests without a socket. */
import { pino } from 'pino'
import { type App, createApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config/load.ts'
import type { Config } from '../../src/config/schema.ts'
import { uniquePrefix } from './redis.ts'

export interface TestApp extends App {
  config: Config
  prefix: string
}

/** `settings`: environment variables. Close the app with `t.teardown(() => app.http.close())`. */
export async function startApp(
  redis: { socket: string },
  settings: Record<string, string> = {},
): Promise<TestApp> {
  const config = testConfig(settings)
  const app = await createApp(config, { socket: redis.socket }, pino({ level: 'silent' }))
  await app.http.ready()
  await untilReady(app)
  return { ...app, config, prefix: config.QUEUE_PREFIX }
}

export function testConfig(settings: Record<string, string> = {}): Config {
  return loadConfig({
    NODE_ENV: 'test',
    REPLICAS: '1',
    QUEUE_PREFIX: uniquePrefix(),
    LOG_LEVEL: 'silent',
    // Other tests delay the event loop of this one; http/pressure.test.ts sets it.
    MAX_EVENT_LOOP_DELAY: '0',
    // The developer may have keys in the default file.
    API_KEYS_FILE: '/nowhere/keys.json',
    ...settings,
  })
}

/** Resolves once `/health/ready` responds with 200; rejects after `timeoutMs`. */
export async function untilReady(app: App, timeoutMs = 10_000): Promise<void> {
  await eventually(async () => {
    const { statusCode } = await app.http.inject('/health/ready')
    return statusCode === 200
  }, timeoutMs)
}

/** Polls until the condition holds. Only for what another process does; what this process does must be signalled. */
export async function eventually(
  condition: () => Promise<boolean> | boolean,
  timeoutMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`The condition did not hold within ${timeoutMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
