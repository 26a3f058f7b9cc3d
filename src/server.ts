/** The process: settings, Redis, the app, signals, and the exit code. */
import closeWithGrace from 'close-with-grace'
import { pino } from 'pino'
import { createApp } from './app.ts'
import { ConfigError, isLoopback, loadConfig } from './config/load.ts'
import { loadOrCreateSecret } from './config/secret.ts'
import { type EmbeddedRedis, startEmbeddedRedis } from './redis/embedded/embedded-redis.ts'

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

// How each thing that was started ends, the last first: a signal, or a failure, may come before everything is up.
const ends: (() => Promise<unknown> | undefined)[] = []

try {
  await serve()
} catch (error) {
  log.fatal((error as Error).message)
  await endAll()
  process.exit(1)
}

async function serve(): Promise<void> {
  closeWithGrace(
    { delay: config.SHUTDOWN_TIMEOUT + config.SHUTDOWN_DELAY, logger: log },
    async ({ signal, err }) => {
      if (err) log.fatal({ err }, 'closing after an error nobody caught')
      else log.info({ signal }, 'closing: requests in flight are finished first')
      await endAll()
      log.info('closed')
    },
  )

  const starting = startRedis()
  ends.push(() => starting.then((embedded) => embedded?.close()).catch(() => {}))
  const embedded = await starting
  const address = embedded ? { socket: embedded.socket } : { url: config.REDIS_URL ?? 'redis://127.0.0.1' }
  const secret = config.SECRET ?? (await loadOrCreateSecret(config.DATA_DIR))
  const {
    http,
    drain,
    requiresKey: demandsKey,
  } = await createApp({ ...config, SECRET: secret }, address, log)
  ends.push(() => http.close())
  guardDoor(demandsKey())
  ends.push(async () => {
    drain()
    if (config.SHUTDOWN_DELAY > 0) await new Promise((resolve) => setTimeout(resolve, config.SHUTDOWN_DELAY))
  })
  const url = await http.listen({ host: config.HOST, port: config.PORT })
  log.info(`Server listening at ${url}`)
}

/** Without keys whoever reaches the port may do everything, so it is for this machine alone, unless that is meant. */
function guardDoor(demandsKey: boolean): void {
  if (demandsKey) return
  if (isLoopback(config.HOST)) {
    log.warn('serving without API keys, on loopback only; make one with: npm run key -- create')
  } else if (config.ALLOW_ANONYMOUS) {
    log.warn('serving without API keys beyond loopback, as ALLOW_ANONYMOUS=true says')
  } else {
    throw new Error(
      `HOST ${config.HOST} can be reached from other machines and ${config.API_KEYS_FILE} holds no API keys: make one ` +
        '(npm run key -- create), or set HOST=127.0.0.1, or ALLOW_ANONYMOUS=true where the network keeps strangers out',
    )
  }
}

async function endAll(): Promise<void> {
  for (let end = ends.pop(); end; end = ends.pop()) await end()
}

/** A private redis-server, unless there is a REDIS_URL or nothing is to be connected. */
async function startRedis(): Promise<EmbeddedRedis | undefined> {
  if (config.REDIS_URL !== undefined || config.BUILDING) return undefined
  const embedded = await startEmbeddedRedis({
    dataDir: config.DATA_DIR,
    cacheDir: '.redis',
    path: process.env['PATH'] ?? '',
    log: (message) => log.info(message),
  })
  log.info(
    { dataDir: config.DATA_DIR, redis: embedded.version },
    'using a private redis-server; set REDIS_URL for another',
  )
  return embedded
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
