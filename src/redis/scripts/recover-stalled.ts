/** Moves stalled jobs back to wait, as BullMQ does, and reports when to run again. */
import type { Redis } from 'ioredis'
import type { BullmqCommand } from '../../bullmq/command-recorder.ts'
import { bullmqScript } from '../../bullmq/script-source.ts'
import { loadScript, runScript } from './run-script.ts'

const script = loadScript('recover-stalled')
const [bullmqName] = script.bullmqScripts as [string]

export interface StalledReport {
  activeCount: number
  /** Time until the first lock of an active job expires, ms; -1 if one has no lock or no job is active. */
  firstExpiryMs: number
}

/** Sends one command. `command` is what BullMQ would send as moveStalledJobsToWait. Rejects as Redis does. */
export async function recoverStalledJobs(client: Redis, { list }: BullmqCommand): Promise<StalledReport> {
  const keyCount = bullmqScript(bullmqName).keys
  const keys = list.slice(0, keyCount).map(String)
  const args = list.slice(keyCount).map((value) => (Buffer.isBuffer(value) ? value : String(value ?? '')))
  const reply = await runScript(client, script, keys, args)
  const [activeCount, firstExpiryMs] = reply as [number, number]
  return { activeCount, firstExpiryMs }
}
