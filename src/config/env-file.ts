/** Loads `.env` into the environment of the process. For entry points only. */
import { loadEnvFile } from 'node:process'

/** Variables that are set already keep their value. */
export function loadDotEnv(): void {
  try {
    loadEnvFile('.env')
  } catch {
    // Without the file, the environment alone counts.
  }
}
