/** Settings for data that is kept in memory: job statuses, followed queues and the health summary. */
import { DAY_MS, integer } from './setting-types.ts'

export const cacheSettings = {
  CACHE_MAX_BYTES: integer('Memory for cached statuses, bytes.', 67_108_864, 65_536, 17_179_869_184),
  CACHE_TTL_SHORT: integer(
    'How long the status of an unfinished job may be served from memory, ms. Changes that BullMQ announces invalidate it at once; ' +
      'this bounds those it does not announce (updateData, changePriority). At most 1 s while events are not received.',
    60_000,
    0,
    DAY_MS,
  ),
  CACHE_TTL_LONG: integer(
    'How long the status of a finished job may be served from memory, ms, and so how long a job that retention has removed may ' +
      'still be shown.',
    1_800_000,
    0,
    DAY_MS,
  ),
  CACHE_TTL_MISSING: integer('How long the absence of a job is served from memory, ms.', 1_000, 0, DAY_MS),
  CACHE_SWEEP_INTERVAL: integer('How often expired statuses are removed, ms.', 300_000, 1_000, DAY_MS),
  CACHE_STALE_KEEP: integer(
    'How long after its expiry a status may be served, marked as stale, while Redis is unavailable, ms.',
    300_000,
    0,
    DAY_MS,
  ),
  EVENTS_MAX_QUEUES: integer(
    'Most queues whose events are followed at once. Statuses of further queues are cached for 1 s only, and requests that wait ' +
      'for their jobs are served by polls.',
    1_000,
    1,
    10_000,
  ),
  HEALTH_TTL: integer('How long GET /health is served from memory, ms.', 60_000, 0, DAY_MS),
}
