/** The whole service, in this process, on a test's Redis and prefix. `inject` speaks HTTP to it without a socket. */
import { pino } from 'pino'
import { type App, createApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config/load.ts'
import type { Config } from '../../src/config/schema.ts'
import { uniquePrefix } from './redis.ts'

export interface TestApp extends App {
  config: Config
  prefix: string
}

/** `settings`: environment variables, as an operator would give them. Close it with `t.teardown(() => app.http.close())`. */
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
    // A machine that is busy with other tests makes the loop lag; http/pressure.test.ts sets it.
    MAX_EVENT_LOOP_DELAY: '0',
    // Whoever tests may have keys of their own.
    API_KEYS_FILE: '/nowhere/keys.json',
    ...settings,
  })
}

/** Waits until `/health/ready` says yes; a Redis that is meant to be away says no for ever, so this gives up. */
export async function untilReady(app: App, timeoutMs = 10_000): Promise<void> {
  await eventually(async () => {
    const { statusCode } = await app.http.inject('/health/ready')
    return statusCode === 200
  }, timeoutMs)
}

/** Asks until the answer is yes. For what another process does in its own time; never for what this one could signal. */
export async function eventually(
  condition: () => Promise<boolean> | boolean,
  timeoutMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so within ${timeoutMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
