/**
 * D1, by the knife: what a kill in mid-write does once in a hundred times. The append-only file ends in the middle of the
 * transaction that made a job: the job is in it, the record of its idempotency key is not. The client has no answer and
 * repeats; then Redis is killed once more.
 */
import { readdir, readFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { check } from '../checker.ts'
import { enqueue } from '../clients.ts'
import { countsOf, judgements } from '../crowd.ts'
import { drain } from '../drain.ts'
import { createHistory, triesOf } from '../history.ts'
import type { RedisServer } from '../processes.ts'
import type { Finding, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { until } from '../wait.ts'

const QUEUE = 'cut'

export const fileCut: Scenario = {
  id: 'D1 cut',
  fault: 'the kill of Redis cuts its file in mid-transaction; restart, a repeat, and another kill',
  run: (stage) => cutAndKill(stage, true),
  controls: [
    {
      what: 'Redis is started with the file as it is, without `redis-check-aof --fix`',
      misses: 'duplicated',
      run: (stage) => cutAndKill(stage, false),
    },
  ],
}

async function cutAndKill(stage: Stage, mends: boolean): Promise<Finding> {
  const redis = await stage.redis({ fsync: 'always', mends })
  const service = await stage.service(redis.url)
  const toService = await stage.proxy({ port: Number(new URL(service.url).port) })
  const history = createHistory(QUEUE)
  const options = {
    ...{ browser: stage.browser(), history, queue: QUEUE },
    ...{ keys: 'header' as const, retries: true, choose: () => `http://127.0.0.1:${toService.port}` },
  }
  await enqueue(options, 0)

  toService.faults.loseShare = 1
  const pending = enqueue(options, 0)
  await until('its answer is lost', () => triesOf(history).length > 1)
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
    checks: judgements([verdict], seen, [history]),
    counts: { ...countsOf([verdict]), 'SIGKILL of Redis': 2 },
  }
}

/** In the middle of the last command that writes a record. */
async function cut({ dir }: RedisServer): Promise<void> {
  const folder = join(dir, 'appendonlydir')
  const files = (await readdir(folder)).filter((name) => name.endsWith('.incr.aof')).sort()
  const file = join(folder, files.at(-1)!)
  const at = (await readFile(file)).lastIndexOf('sluice:idempotency')
  if (at < 0) throw new Error('there is no record in the file')
  await truncate(file, at)
}
