/** Connection budgets for a provider limit of 1,024 connections, and for other settings. */
import t from 'tap'
import { loadConfig } from '../../../src/config/load.ts'
import {
  computeConnectionBudget,
  maxWaitingOperations,
} from '../../../src/redis/connection/connection-budget.ts'

const budget = (cpus: number, env: Record<string, string> = {}) =>
  computeConnectionBudget(loadConfig(env), cpus)
const production = { NODE_ENV: 'production' }

t.test('the usable total is the provider limit minus the reserve', async (t) => {
  t.match(budget(8), { providerLimit: 1024, reserved: 24, usable: 1000 })
  t.equal(budget(8, { REDIS_PROVIDER_LIMIT: '100', REDIS_RESERVED_CONNECTIONS: '10' }).usable, 90)
  t.equal(budget(8, { REDIS_POOL_ABSOLUTE_MAX: '300' }).usable, 300)
})

t.test('in production the total is divided by the number of CPUs', async (t) => {
  t.match(budget(8, production), { replicas: 8, perProcess: 125 })
  t.match(budget(16, production), { replicas: 16, perProcess: 62 })
  t.match(
    budget(0, production),
    { replicas: 1, perProcess: 1000 },
    'at least one, even if the number of CPUs is unknown',
  )
})

t.test('in development a process may open 50, or its part of the total if that is less', async (t) => {
  t.equal(budget(8).perProcess, 50)
  t.equal(budget(16).perProcess, 50)
  t.equal(budget(100).perProcess, 10)
})

t.test('the operator may set the replicas and the number per process, up to the usable total', async (t) => {
  t.match(budget(8, { ...production, REPLICAS: '4' }), { replicas: 4, perProcess: 250 })
  t.equal(budget(8, { ...production, REDIS_POOL_ABSOLUTE_MAX: '80' }).perProcess, 10)
  t.equal(budget(8, { ...production, REDIS_POOL_MAX_PER_WORKER: '200' }).perProcess, 200)
  t.equal(budget(8, { REDIS_POOL_MAX_PER_WORKER: '200' }).perProcess, 200, 'in development too')
  t.equal(budget(8, { REDIS_POOL_MAX_PER_WORKER: '5000' }).perProcess, 1000)
})

t.test('a process opens the pool, admin and events, and knows how many connections are useful', async (t) => {
  t.match(budget(8), { wanted: 4, usefulMax: 120 })
  t.match(budget(8, { REDIS_POOL_SIZE: '10', REDIS_MAX_CONCURRENT_OPS: '40' }), {
    wanted: 12,
    usefulMax: 60,
  })
})

t.test('5,000 operations may wait in production, 200 elsewhere, or as many as configured', async (t) => {
  t.equal(maxWaitingOperations(loadConfig(production)), 5_000)
  t.equal(maxWaitingOperations(loadConfig({})), 200)
  t.equal(maxWaitingOperations(loadConfig({ NODE_ENV: 'test' })), 200)
  t.equal(maxWaitingOperations(loadConfig({ ...production, REDIS_MAX_WAITING: '0' })), 0)
})
