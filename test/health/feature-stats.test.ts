/** How the stats of features are read, composed and reduced to what a caller may see. */

import t from 'tap'
import { Type } from 'typebox'
import { type Access, anonymous } from '../../src/auth/access.ts'
import type { Feature } from '../../src/feature.ts'
import { collectStats, healthStats, readStats, schemasOf, statsFor } from '../../src/health/feature-stats.ts'

const batching: Feature = {
  stats: {
    batching: {
      schema: Type.Object({}),
      read: () => ({ jobsSent: 3, byQueue: { emails: 1, secret: 2 }, byKey: { mailer: 4, other: 5 } }),
      isInHealth: true,
      keyedByQueue: ['byQueue'],
      keyedByKey: ['byKey'],
    },
  },
}
const waiting: Feature = { stats: { waiting: { schema: Type.Integer(), read: () => 7 } } }
const stats = collectStats([batching, {}, waiting])

t.test('stats are collected in the order of the features, with their schemas', async (t) => {
  t.same(Object.keys(schemasOf(stats)), ['batching', 'waiting'])
  t.same(Object.keys(schemasOf(healthStats(stats))), ['batching'])
  t.same(readStats(stats), {
    batching: { jobsSent: 3, byQueue: { emails: 1, secret: 2 }, byKey: { mailer: 4, other: 5 } },
    waiting: 7,
  })
})

t.test(
  'a caller sees only its queues and its key in what is keyed by them, and the rest as it is',
  async (t) => {
    const values = readStats(stats)
    const emailsOnly: Access = {
      ...anonymous,
      keyId: 'mailer',
      canAccessQueue: (queue) => queue === 'emails',
      coversAllQueues: false,
    }
    t.same(statsFor(emailsOnly, stats, values), {
      batching: { jobsSent: 3, byQueue: { emails: 1 }, byKey: { mailer: 4 } },
      waiting: 7,
    })
    t.same(statsFor(anonymous, stats, values), values)
    t.same(Object.keys((values['batching'] as { byQueue: object }).byQueue), ['emails', 'secret'], 'a copy')
  },
)
