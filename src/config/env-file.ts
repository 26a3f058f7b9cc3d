/** `.env`, for the entry points: loaded into the environment of the process where there is one. */
import { loadEnvFile } from 'node:process'

/** Variables that are set already keep their value. */
export function loadDotEnv(): void {
  try {
    loadEnvFile('.env')
  } catch {
    // There is no file: the environment alone counts.
  }
}
