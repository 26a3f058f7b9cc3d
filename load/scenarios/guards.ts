/** The cost of the guards: API keys with scopes, queues and a rate limit, event loop lag, Redis memory. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { addKey, createApiKeySecret } from '../../src/auth/key-file.ts'
import { writeKeyFile } from '../../src/auth/key-file-update.ts'
import type { Load } from '../bench.ts'
import { addWaitingJobs } from './read.ts'
import { compare, type Goal, job, json, type Scenario, type Side } from './scenario.ts'

const off = { MAX_EVENT_LOOP_DELAY: '0', REDIS_MEMORY_WATERMARK: '0' }

export const guards: Scenario = {
  name: 'guards',
  shows:
    'A hot read and an enqueue with all guards on, including an API key with queues and a rate limit, compared with the same requests without guards.',
  async run(effort) {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-'))
    try {
      const file = join(folder, 'keys.json')
      const secret = createApiKeySecret('load')
      const grant = { id: 'load', queues: ['other', 'lo*'], rate: { max: 1e9, windowMs: 1_000 } }
      const request = { ...grant, scopes: ['enqueue' as const, 'read' as const] }
      await writeKeyFile(file, addKey({ version: 1, keys: [] }, request, secret, new Date().toISOString()))
      const sides = (env: Record<string, string>, more: Partial<Side>): Side[] => [
        { label: 'guards off', target: 'ours', env: () => ({ ...off, ...env }), ...more },
        { label: 'guards on', target: 'ours', env: () => ({ API_KEYS_FILE: file, ...env }), ...more },
      ]
      // Both sides get the same bytes, so that only the work of the guards differs.
      const headers = { ...json, authorization: `Bearer ${secret}` }
      const read: Load = { path: '/jobs/load:job-0', headers, connections: 50 }
      const prepare: Side['prepare'] = (redis) => addWaitingJobs(redis, 1).then(() => ({}))
      const post: Load = {
        path: '/jobs',
        method: 'POST',
        headers,
        body: JSON.stringify(job),
        connections: 50,
      }
      const kinds = [
        { name: 'hot read', load: read, sides: sides({ CACHE_TTL_SHORT: '86400000' }, { prepare }) },
        { name: 'one job', load: post, sides: sides({}, {}) },
      ]
      const rows = []
      const goals: Goal[] = []
      for (const { name, load, sides: both } of kinds) {
        const { rows: measured, of } = await compare(this.name, both, [{ name, load }], effort)
        rows.push(...measured)
        const [without, withAll] = [of('guards off'), of('guards on')]
        goals.push({
          what: `${name}: Node CPU with guards on, against off`,
          measured: withAll.nodeUs / without.nodeUs,
          atMost: 1.15,
        })
      }
      return { rows, goals }
    } finally {
      await rm(folder, { recursive: true })
    }
  },
}
