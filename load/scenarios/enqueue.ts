/** Enqueueing single jobs of about 100 bytes. */
import { compare, type Goal, job, json, type Scenario, type Setting } from './scenario.ts'

const post = { path: '/jobs', method: 'POST' as const, headers: json }

export const single: Scenario = {
  name: 'single enqueue',
  shows:
    'The cost of one POST /jobs, compared with a route that stores nothing and one that calls queue.add.',
  async run(effort) {
    const counts = effort.isQuick ? [50] : [1, 50, 500]
    const settings = counts.map((connections): Setting => {
      const name = connections === 1 ? '1 connection' : `${connections} connections`
      return { name, load: { ...post, body: JSON.stringify(job), connections } }
    })
    const { rows, of, ratio } = await compare(
      this.name,
      ['ours', 'shared', 'naive', 'bare'],
      settings,
      effort,
    )
    const at50 = (target: string) => of(target, '50 connections')
    const [ours, shared, naive, bare] = [at50('ours'), at50('shared'), at50('naive'), at50('bare')]
    const goals: Goal[] = [
      { what: 'Redis commands per job', measured: ours.commands, atMost: 0.2 },
      { what: 'rate, against shared', measured: ours.requestsPerS / shared.requestsPerS, atLeast: 1.2 },
      {
        what: 'Node CPU, against shared',
        measured: ratio('nodeUs', 'ours', 'shared', '50 connections'),
        atMost: 0.7,
        isRequired: true,
      },
      { what: 'Redis CPU, against shared', measured: ours.redisUs / shared.redisUs, atMost: 0.7 },
      { what: 'rate, against naive', measured: ours.requestsPerS / naive.requestsPerS, atLeast: 30 },
      { what: 'rate, against bare', measured: ours.requestsPerS / bare.requestsPerS, atLeast: 0.62 },
    ]
    if (!effort.isQuick) {
      const [mine, theirs] = [of('ours', '500 connections'), of('shared', '500 connections')]
      const measured = mine.requestsPerS / theirs.requestsPerS
      goals.push({ what: 'rate at 500 connections, against shared', measured, atLeast: 1.4 })
      goals.push({ what: 'RSS at 500 connections, MB', measured: mine.rssMb, atMost: 150, isRequired: true })
      goals.push({
        what: 'rate at one connection, against shared',
        measured: ratio('requestsPerS', 'ours', 'shared', '1 connection'),
        atLeast: 1,
        isRequired: true,
      })
    }
    return { rows, goals }
  },
}
