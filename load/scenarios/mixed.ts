/** The usual mix of an application: mostly status reads, some enqueues. */
import { addWaitingJobs } from './read.ts'
import { compare, job, json, type Scenario } from './scenario.ts'

export const mixed: Scenario = {
  name: 'mixed',
  shows: 'Seven of ten requests read one of 200 jobs and three enqueue, over fifty connections.',
  async run(effort) {
    const post = { method: 'POST' as const, path: '/jobs', headers: json, body: JSON.stringify(job) }
    const get = (i: number) => ({ method: 'GET' as const, path: `/jobs/load:job-${i % 200}` })
    const requests = Array.from({ length: 1_000 }, (_, i) => (i % 10 < 3 ? post : get(i)))
    const sides = ['ours', 'shared'].map((target) => ({
      target,
      prepare: async (redis: Parameters<typeof addWaitingJobs>[0]) => {
        await addWaitingJobs(redis, 200)
        return {}
      },
    }))
    const settings = [{ name: '50 connections', load: { requests, connections: 50 } }]
    const { rows, of } = await compare(this.name, sides, settings, effort)
    const [ours, shared] = [of('ours'), of('shared')]
    return {
      rows,
      goals: [
        { what: 'rate, against shared', measured: ours.requestsPerS / shared.requestsPerS, atLeast: 1.5 },
        {
          what: 'Redis commands per request, against shared',
          measured: ours.commands / shared.commands,
          atMost: 0.1,
        },
      ],
    }
  },
}
