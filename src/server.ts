/** The process: settings, Redis, the app, signals, and the exit code. */
import closeWithGrace from 'close-with-grace'
import { pino } from 'pino'
import { createApp } from './app.ts'
import { ConfigError, isLoopback, loadConfig } from './config.ts'
import { startEmbeddedRedis } from './redis/embedded.ts'

try {
  process.loadEnvFile('.env')
} catch {
  // There is none: the environment alone counts.
}

const config = readConfig()
const log = pino({
  name: 'sluice',
  level: config.LOG_LEVEL,
  redact: { paths: ['*.authorization', '*.password', '*.secret', '*.REDIS_URL'], censor: '[redacted]' },
})

try {
  await serve()
} catch (error) {
  log.fatal((error as Error).message)
  process.exit(1)
}

async function serve(): Promise<void> {
  const embedded = config.REDIS_URL === undefined && !config.BUILDING ? await embed() : undefined
  const address = embedded ? { socket: embedded.socket } : { url: config.REDIS_URL ?? 'redis://127.0.0.1' }
  const { http, drain } = await createApp(config, address, log)
  if (embedded) {
    log.info(
      { dataDir: config.DATA_DIR, redis: embedded.version },
      'using a private redis-server; set REDIS_URL for another',
    )
  }

  closeWithGrace(
    { delay: config.SHUTDOWN_TIMEOUT + config.SHUTDOWN_DELAY, logger: log },
    async ({ signal, err }) => {
      if (err) log.fatal({ err }, 'closing after an error nobody caught')
      else log.info({ signal }, 'closing: requests in flight are finished first')
      drain()
      if (config.SHUTDOWN_DELAY > 0)
        await new Promise((resolve) => setTimeout(resolve, config.SHUTDOWN_DELAY))
      await http.close()
      await embedded?.close()
      log.info('closed')
    },
  )

  await http.listen({ host: config.HOST, port: config.PORT })
  if (!isLoopback(config.HOST))
    log.warn('serving without API keys beyond loopback, as ALLOW_ANONYMOUS=true says')
}

function readConfig() {
  try {
    return loadConfig(process.env)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exit(1)
  }
}

function embed() {
  return startEmbeddedRedis({
    dataDir: config.DATA_DIR,
    cacheDir: '.redis',
    path: process.env['PATH'] ?? '',
    log: (message) => log.info(message),
  })
}
