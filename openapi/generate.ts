/**
 * `npm run openapi`: generates openapi/openapi.json, the contract from which clients are generated, from the app's own
 * routes. It needs no Redis and is the same on every machine. A test fails when the file is stale.
 */
import { writeFile } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { pino } from 'pino'
import { createApp } from '../src/app.ts'
import { loadConfig } from '../src/config/load.ts'

export async function openapiDocument(): Promise<object> {
  // Default settings only, so that the environment does not show in the document. REPLICAS replaces the number of CPUs:
  // on a machine with many, the connection budget would be too small to start.
  const config = loadConfig({ BUILDING: 'true', REPLICAS: '1' })
  const { http } = await createApp(config, { url: 'redis://127.0.0.1:1' }, pino({ level: 'silent' }))
  try {
    await http.ready()
    return http.swagger()
  } finally {
    await http.close()
  }
}

/** The text of the committed file. */
export async function openapiText(): Promise<string> {
  return `${JSON.stringify(await openapiDocument(), null, 2)}\n`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await writeFile(fileURLToPath(new URL('openapi.json', import.meta.url)), await openapiText())
}
