/**
 * `npm run openapi`: writes openapi/openapi.json, the committed contract that clients are generated from. It is made
 * from the app's own routes, without a Redis, and the same on every machine. A test fails when the file is stale.
 */
import { writeFile } from 'node:fs/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { pino } from 'pino'
import { createApp } from '../src/app.ts'
import { loadConfig } from '../src/config/load.ts'

export async function openapiDocument(): Promise<object> {
  // Settings are defaults alone, so that nobody's environment shows in the document. REPLICAS keeps the
  // number of CPUs out of the connection budget, which would refuse to boot where there are many.
  const config = loadConfig({ BUILDING: 'true', REPLICAS: '1' })
  const { http } = await createApp(config, { url: 'redis://127.0.0.1:1' }, pino({ level: 'silent' }))
  try {
    await http.ready()
    return http.swagger()
  } finally {
    await http.close()
  }
}

/** As it is committed. */
export async function openapiText(): Promise<string> {
  return `${JSON.stringify(await openapiDocument(), null, 2)}\n`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await writeFile(fileURLToPath(new URL('openapi.json', import.meta.url)), await openapiText())
}
