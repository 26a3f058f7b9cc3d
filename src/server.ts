/** The process: settings, Redis, the app, signals, and the exit code. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import closeWithGrace from 'close-with-grace'
import { type Logger, pino } from 'pino'
import { createApp, featureDefinitions } from './app.ts'
import { loadDotEnv } from './config/env-file.ts'
import { ConfigError, isLoopback, loadConfig } from './config/load.ts'
import type { Config } from './config/schema.ts'
import { loadOrCreateSecret } from './config/secret.ts'
import { selectFeatures } from './feature.ts'
import { limitHeapGrowth } from './heap-growth.ts'
import { createLifecycle, type Lifecycle } from './lifecycle.ts'
import { type EmbeddedRedis, startEmbeddedRedis } from './redis/embedded/embedded-redis.ts'

limitHeapGrowth()
loadDotEnv()
const config = readConfig()
const log = pino({
  name: 'sluice',
  level: config.LOG_LEVEL,
  redact: { paths: ['*.authorization', '*.password', '*.secret', '*.REDIS_URL'], censor: '[redacted]' },
})
// A signal or a failure may come before everything has started. Then only the started parts are closed.
const lifecycle = createLifecycle()

try {
  await serve(config, log, lifecycle)
} catch (error) {
  log.fatal((error as Error).message)
  await lifecycle.close()
  process.exit(1)
}

async function serve(config: Config, log: Logger, { onClose, close }: Lifecycle): Promise<void> {
  closeWithGrace(
    { delay: config.SHUTDOWN_TIMEOUT + config.SHUTDOWN_DELAY, logger: log },
    async ({ signal, err }) => {
      if (err) log.fatal({ err }, 'Closing after an uncaught error')
      else log.info({ signal }, 'Closing: finishing the requests in flight')
      await close()
      log.info('Closed')
    },
  )

  const starting = startRedis(config, log)
  onClose(() => starting.then((embedded) => embedded?.close()).catch(() => {}))
  const embedded = await starting
  const address = embedded ? { socket: embedded.socket } : { url: config.REDIS_URL ?? 'redis://127.0.0.1' }
  const secret =
    config.SECRET ?? (await loadOrCreateSecret(config.DATA_DIR, (sentence) => log.warn(sentence)))
  const { http, drain, requiresKey } = await createApp({ ...config, SECRET: secret }, address, log)
  onClose(() => http.close())
  assertSafeToListen(config, log, requiresKey())
  onClose(async () => {
    drain()
    if (config.SHUTDOWN_DELAY > 0) await new Promise((resolve) => setTimeout(resolve, config.SHUTDOWN_DELAY))
  })
  const url = await http.listen({ host: config.HOST, port: config.PORT })
  log.info(`Server listening at ${url}`)
}

/** Without API keys every client that reaches the port may do everything, so only loopback is allowed by default. */
function assertSafeToListen(config: Config, log: Logger, requiresKey: boolean): void {
  if (requiresKey) return
  // With a mount that failed or a mistyped path, the operator's keys would be missing and every client be let in.
  if (config.ALLOW_ANONYMOUS && process.env['API_KEYS_FILE'] && !existsSync(config.API_KEYS_FILE)) {
    throw new Error(
      `API_KEYS_FILE names ${config.API_KEYS_FILE}, which does not exist. Restore the file, or unset API_KEYS_FILE if ` +
        'ALLOW_ANONYMOUS=true is meant: every client that reaches the port may then do everything.',
    )
  }
  if (isLoopback(config.HOST)) {
    log.warn('No API keys: listening on loopback only. Create a key with: npm run key -- create')
  } else if (config.ALLOW_ANONYMOUS) {
    log.warn('No API keys: every client that reaches the port may do everything (ALLOW_ANONYMOUS=true)')
  } else {
    throw new Error(
      `HOST ${config.HOST} is reachable from other machines and ${config.API_KEYS_FILE} holds no API keys. Create one ` +
        '(npm run key -- create), or set HOST=127.0.0.1, or set ALLOW_ANONYMOUS=true where the network keeps other clients out.',
    )
  }
}

/** Starts a private redis-server, unless REDIS_URL names another or BUILDING is set. */
async function startRedis(config: Config, log: Logger): Promise<EmbeddedRedis | undefined> {
  if (config.REDIS_URL !== undefined || config.BUILDING) return undefined
  const embedded = await startEmbeddedRedis({
    dataDir: config.DATA_DIR,
    // Beside the program, not in the working directory, which may hold anything.
    cacheDir: fileURLToPath(new URL('../.redis', import.meta.url)),
    path: process.env['PATH'] ?? '',
    log: (message) => log.info(message),
    warn: (message) => log.warn(message),
  })
  log.info(
    { dataDir: config.DATA_DIR, redis: embedded.version },
    'Using a private redis-server. Set REDIS_URL to use another one',
  )
  return embedded
}

function readConfig(): Config {
  try {
    const config = loadConfig(process.env)
    // Before Redis starts. createApp selects them again.
    selectFeatures(featureDefinitions, config.FEATURES_DISABLED)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exit(1)
  }
}
