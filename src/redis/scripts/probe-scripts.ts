/** Runs the smallest script, in the way in which every script is run. */
import type { Redis } from 'ioredis'
import { loadScript, runScript } from './run-script.ts'

const script = loadScript('probe-scripts')

/** One command, two if the server does not know the script. Rejects as Redis does. */
export async function probeScripts(client: Redis): Promise<void> {
  await runScript(client, script, [], [])
}
