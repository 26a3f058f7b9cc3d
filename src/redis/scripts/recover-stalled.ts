/** Moves stalled jobs back to wait, as BullMQ does, and says when to look again. */
import type { Redis } from 'ioredis'
import type { BullmqCommand } from '../../bullmq/command-recorder.ts'
import { bullmqScript } from '../../bullmq/script-source.ts'
import { recoverStalledScript, runScript } from './run-script.ts'

/** Of the active jobs how many there are, and when the first of their locks runs out, ms from now (-1: one has none). */
export async function recoverStalledJobs(client: Redis, { list }: BullmqCommand): Promise<[number, number]> {
  const keyCount = bullmqScript('moveStalledJobsToWait').keys
  const keys = list.slice(0, keyCount).map(String)
  const args = list.slice(keyCount).map((value) => (Buffer.isBuffer(value) ? value : String(value ?? '')))
  return (await runScript(client, recoverStalledScript, [...keys, keys[ACTIVE_KEY]!], args)) as [
    number,
    number,
  ]
}

/** Its place among the keys of moveStalledJobsToWait. */
const ACTIVE_KEY = 2
