/**
 * D1 with a truncated file, as one kill in a hundred produces: the append-only file ends within the transaction that adds
 * a job, after the job and before its idempotency record. The client got no response and repeats; then Redis is killed again.
 */
import { readdir, readFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { check } from '../checker.ts'
import { countsOf, toChecks } from '../client-groups.ts'
import { enqueue } from '../clients.ts'
import { drain } from '../drain.ts'
import { createHistory, triesOf } from '../history.ts'
import type { RedisServer } from '../processes.ts'
import type { Finding, Scenario } from '../scenario.ts'
import type { Testbed } from '../testbed.ts'
import { until } from '../timing.ts'

const QUEUE = 'cut'

export const truncatedFile: Scenario = {
  id: 'D1 cut',
  fault: 'the kill of Redis truncates its file within a transaction; restart, a repeat, and another kill',
  run: (testbed) => cutAndKill(testbed, true),
  controls: [
    {
      what: 'Redis starts with the truncated file, not repaired with `redis-check-aof --fix`',
      misses: 'duplicated',
      run: (testbed) => cutAndKill(testbed, false),
    },
  ],
}

async function cutAndKill(testbed: Testbed, repairsFile: boolean): Promise<Finding> {
  const redis = await testbed.redis({ fsync: 'always', repairsFile })
  const service = await testbed.service(redis.url)
  const toService = await testbed.proxy({ port: Number(new URL(service.url).port) })
  const history = createHistory(QUEUE)
  const options = {
    ...{ httpClient: testbed.httpClient(), history, queue: QUEUE },
    ...{ keys: 'header' as const, retries: true, choose: () => `http://127.0.0.1:${toService.port}` },
  }
  await enqueue(options, 0)

  toService.faults.loseShare = 1
  const pending = enqueue(options, 0)
  await until('its response is lost', () => triesOf(history).length > 1)
  await redis.kill()
  await cut(redis)
  await redis.start()
  toService.faults.loseShare = 0
  await pending
  await redis.kill()
  await redis.start()

  const seen = await drain(redis, [QUEUE])
  const verdict = check(history, seen)
  return {
    checks: toChecks([verdict], seen, [history]),
    counts: { ...countsOf([verdict]), 'SIGKILL of Redis': 2 },
  }
}

/** Truncates the file within the last command that writes an idempotency record. */
async function cut({ dir }: RedisServer): Promise<void> {
  const folder = join(dir, 'appendonlydir')
  const files = (await readdir(folder)).filter((name) => name.endsWith('.incr.aof')).sort()
  const file = join(folder, files.at(-1)!)
  const at = (await readFile(file)).lastIndexOf('sluice:idempotency')
  if (at < 0) throw new Error('there is no record in the file')
  await truncate(file, at)
}
