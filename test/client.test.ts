/** TypeScript clients generated from the OpenAPI document: their types match what the service returns. */
import { readFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import createClient from 'openapi-fetch'
import openapiTS, { astToString, COMMENT_HEADER } from 'openapi-typescript'
import t from 'tap'
import type { paths } from './client/schema.d.ts'
import { startApp } from './helpers/app.ts'
import { startRedis } from './helpers/redis.ts'

t.test('test/client/schema.d.ts is the current output of `npm run client:types`', async (t) => {
  const types = await openapiTS(new URL('../openapi/openapi.json', import.meta.url), { silent: true })
  const committed = await readFile(new URL('client/schema.d.ts', import.meta.url), 'utf8')
  t.equal(committed, COMMENT_HEADER + astToString(types))
})

t.test('a generated client enqueues a job and reads it back, with types', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  await app.http.listen({ port: 0 })
  const { port } = app.http.server.address() as AddressInfo
  const client = createClient<paths>({ baseUrl: `http://127.0.0.1:${port}` })

  const added = await client.POST('/jobs', {
    body: {
      queue: 'emails',
      name: 'welcome',
      data: { to: 'ann@example.com' },
      opts: { attempts: 3, backoff: 500 },
    },
  })
  t.equal(added.response.status, 201)
  // The annotations are half of the test: `tsc` fails if the document does not declare these types.
  const id: string = added.data!.id
  const deduplicated: boolean = added.data!.deduplicated
  t.equal(deduplicated, false)

  const read = await client.GET('/jobs/{id}', {
    params: { path: { id }, query: { include: 'data' } },
  })
  t.equal(read.response.status, 200)
  const job = read.data!
  const attempts: number | null = job.attempts
  const state:
    | 'waiting'
    | 'delayed'
    | 'prioritized'
    | 'active'
    | 'waiting-children'
    | 'completed'
    | 'failed' = job.state
  t.equal(state, 'waiting')
  t.equal(attempts, 3)
  t.match(job, { id, queue: 'emails', name: 'welcome', data: { to: 'ann@example.com' } })

  const missing = await client.GET('/jobs/{id}', { params: { path: { id: 'emails:no-such-job' } } })
  t.equal(missing.response.status, 404)
  const code: string = missing.error!.code
  t.equal(code, 'JOB_NOT_FOUND', 'problems have types too')
})

t.test('requests that the document does not allow do not compile', async (t) => {
  const client = createClient<paths>({ baseUrl: 'http://127.0.0.1:1', fetch: async () => Response.json({}) })
  // @ts-expect-error: the route does not exist.
  await client.GET('/job')
  // @ts-expect-error: a job needs a name.
  await client.POST('/jobs', { body: { queue: 'emails' } })
  // @ts-expect-error: a delay is a number.
  await client.POST('/jobs', { body: { name: 'welcome', opts: { delay: '1s' } } })
  t.pass('checked by `npm run typecheck`')
})
