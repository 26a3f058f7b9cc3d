/** The service in production mode, on the Redis of the run. */
import { pino } from 'pino'
import { createApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config/load.ts'
import { limitHeapGrowth } from '../../src/heap-growth.ts'
import { serveTarget } from './serve.ts'

limitHeapGrowth()
const config = loadConfig({ NODE_ENV: 'production', LOG_LEVEL: 'warn', ...process.env })
const { http } = await createApp(config, { socket: process.env['REDIS_SOCKET']! }, pino({ level: 'warn' }))
await serveTarget(http)
