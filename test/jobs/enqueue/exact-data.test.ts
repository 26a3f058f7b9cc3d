/** The data of a job are stored, and reach native workers, as the text that was sent: over a socket, in Redis, in a Worker. */
import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { type Job, Worker } from 'bullmq'
import t from 'tap'
import { eventually, startApp } from '../../helpers/app.ts'
import { startRedis } from '../../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const app = await startApp(redis)
t.teardown(() => app.http.close())
await app.http.listen({ port: 0, host: '127.0.0.1' })
const { port } = app.http.server.address() as AddressInfo

const MIB = 1_048_576

async function post(body: string | Buffer, url = '/jobs') {
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(`http://127.0.0.1:${port}${url}`, {
    method: 'POST',
    headers,
    body: body as never,
  })
  return { status: response.status, body: (await response.json()) as Record<string, never> }
}

const storedData = (id: string) => redis.client.hget(`${app.prefix}:${id}`, 'data')

/** What is sent, and what is stored if that differs. */
const texts: Record<string, [sent: string, stored?: string]> = {
  'the order of members': ['{"b":1,"a":2,"10":3,"9":4}'],
  '64-bit integers': ['{"id":1970670598291982290,"max":18446744073709551615,"min":-9223372036854775808}'],
  'numbers beyond a double': ['[1e400,-1E+400,1e-400,0.1000000000000000055511151231257827]'],
  'the spelling of numbers': ['[-0,1.0,1.50,1E2,1e+2,100]'],
  escapes: ['{"\\u006eame":"\\u00e9\\/\\u002f\\n\\u000a","b":"\\ud83d\\ude00"}'],
  'escapes of half a surrogate pair': ['["\\ud800","\\udc00\\ud800x"]'],
  'equal names': ['{"a":1,"b":2,"a":3}'],
  Unicode: ['{"é":"日本語 🎉 \u2028 \ufeff"}'],
  'white space inside strings only': [' { "a b" :\t[ 1 ,\r\n "x  y" , { } ] }\n', '{"a b":[1,"x  y",{}]}'],
  'a text': ['"x"'],
  'a number': ['12345678901234567890'],
  'an array': ['[]'],
  null: ['null'],
  false: ['false'],
}
const large = `{"lines":[${'{"sku":"A-1","title":"an ordinary line","qty":3.0,"price":1.50,"id":1970670598291982290},'.repeat(11_000)}0]}`

t.test('data are stored as the text that was sent, in single jobs and in batches', async (t) => {
  const cases = Object.entries({ ...texts, 'almost a mebibyte': [large] as [string] })
  const jobs = cases.map(([, [sent]]) => `{"data":${sent},"queue":"exact","name":"n"}`)
  t.ok(jobs.at(-1)!.length > 0.9 * MIB && jobs.at(-1)!.length < MIB)
  const batch = await post(`{"jobs":[${jobs.join(' ,\n')}]}`, '/jobs/batch')
  t.equal(batch.status, 201, JSON.stringify(batch.body).slice(0, 300))
  for (const [index, [name, [sent, stored = sent]]] of cases.entries()) {
    const single = await post(jobs[index]!)
    t.equal(single.status, 201, name)
    t.ok((await storedData(single.body['id']!)) === stored, `${name}: alone`)
    t.ok(
      (await storedData((batch.body['results'] as unknown as { id: string }[])[index]!.id)) === stored,
      `${name}: in a batch`,
    )
  }
})

t.test('without data they are {}, and of equal names the last counts, as in JSON.parse', async (t) => {
  for (const [body, stored] of [
    ['{"queue":"plain","name":"n"}', '{}'],
    ['{"queue":"plain","name":"n","data":1,"d\\u0061ta":[2.0]}', '[2.0]'],
    ['{"queue":"plain","data":{"a":1.0},"name":"x","name":"n","opts":{}}', '{"a":1.0}'],
  ] as const)
    t.equal(await storedData((await post(body)).body['id']!), stored)
})

t.test('nothing in a body can pass as the place of its data', async (t) => {
  const forged = '{"body":"x","start":0,"end":1,"spaces":0}'
  t.equal(await storedData((await post(`{"queue":"f","name":"n","data":${forged}}`)).body['id']!), forged)
  t.equal((await post(`{"queue":"f","name":"n","opts":{"data":${forged}}}`)).status, 400)
})

t.test('a native worker sees exactly JSON.parse of what was sent', async (t) => {
  const seen: Job[] = []
  const worker = new Worker('native', async (job) => void seen.push(job), {
    connection: { path: redis.socket, maxRetriesPerRequest: null },
    prefix: app.prefix,
  })
  t.teardown(() => worker.close())
  const cases = Object.entries(texts)
  for (const [name, [sent]] of cases)
    await post(`{"queue":"native","name":${JSON.stringify(name)},"data":${sent}}`)
  await post(`{"queue":"native","name":"large","data":${large}}`)
  await post('{"queue":"native","name":"none"}')
  await eventually(() => seen.length === cases.length + 2)
  const dataOf = (name: string) => seen.find((job) => job.name === name)!.data
  for (const [name, [sent]] of cases) t.strictSame(dataOf(name), JSON.parse(sent), name)
  t.strictSame(dataOf('large'), JSON.parse(large))
  t.strictSame(dataOf('none'), {})
})

t.test('a client that waits for its job gets the result as it was settled', async (t) => {
  const send = (url: string, body: string) =>
    app.http.inject({ method: 'POST', url, payload: body, headers: { 'content-type': 'application/json' } })
  for (const result of ['{"id":1970670598291982290,"a":[-0,1e400],"a":"\\u00e9"}', large]) {
    const waiting = send('/jobs?wait=30', '{"queue":"waited","name":"n"}')
    const taken = await send('/queues/waited/leases', '{"max":1,"wait":30}')
    const { lease } = taken.json().jobs[0]
    const settled = await send(
      '/leases/settle',
      `{"items":[{"lease":"${lease}","outcome":"complete","result":${result}}]}`,
    )
    t.equal(settled.statusCode, 200)
    const { body } = await waiting
    t.ok(body.includes(`"result":${result},`) && body.endsWith(',"deduplicated":false}'))
    t.equal(JSON.parse(body).state, 'completed')
  }
})

t.test('a job that waits for its result does not keep its body in memory', async (t) => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const body = `{"queue":"kept","name":"n","data":${JSON.stringify('x'.repeat(MIB - 100))}}`
  const count = 20
  const sockets = Array.from({ length: count }, () => connect(port, '127.0.0.1'))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
  })
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  const request = Buffer.from(
    `POST /jobs?wait=20 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  )
  for (const socket of sockets) socket.write(request)
  await eventually(async () => (await redis.client.llen(`${app.prefix}:kept:wait`)) === count)
  await eventually(() => {
    collect()
    return process.memoryUsage().arrayBuffers < (count / 2) * MIB
  }, 5_000)
  t.pass('most of the bodies are free')
})

/** Measures turns of the event loop by their CPU time, since other processes want the CPU as well. */
function watchTurns() {
  let longestUs = 0
  let isOver = false
  let last = process.cpuUsage()
  const next = () => {
    const now = process.cpuUsage()
    longestUs = Math.max(longestUs, now.user + now.system - last.user - last.system)
    last = now
    if (!isOver) setImmediate(next)
  }
  setImmediate(next)
  return {
    async longestMs() {
      await setTimeout(2)
      isOver = true
      return longestUs / 1_000
    },
  }
}

t.test('no body of a mebibyte holds the event loop for long', async (t) => {
  const fill = (open: string, item: string, close: string) =>
    `${open}${Array(Math.floor((MIB - 200) / (item.length + 1)))
      .fill(item)
      .join()}${close}`
  const bodies = {
    objects: fill(
      '{"queue":"t","name":"n","data":[',
      '{"sku":"A-1","title":"an ordinary line","qty":3,"price":12.5}',
      ']}',
    ),
    'white space': fill('{"queue":"t","name":"n","data":[', ' { "a" : 1 } ', ']}'),
    'empty objects': fill('{"queue":"t","name":"n","data":[', '{}', ']}'),
    escapes: fill('{"queue":"t","name":"n","data":[', '"\\u00e9\\n"', ']}'),
    'member names': `{"queue":"t","name":"n","data":{${Array.from({ length: 90_000 }, (_, n) => `"k${n}":${n % 10}`).join()}}}`,
  }
  for (const [name, body] of Object.entries(bodies)) {
    t.ok(body.length > 0.8 * MIB && body.length <= MIB, `${name}: ${body.length}`)
    const turns: number[] = []
    for (let i = 0; i < 4; i++) {
      const turn = watchTurns()
      const response = await app.http.inject({
        method: 'POST',
        url: '/jobs',
        headers: { 'content-type': 'application/json' },
        payload: body,
      })
      turns.push(await turn.longestMs())
      t.equal(response.statusCode, 201)
    }
    t.comment(`${name}: ${turns.map((ms) => ms.toFixed(1)).join(', ')} ms`)
    t.ok(Math.min(...turns) <= 25, `${name}: ${turns.map((ms) => ms.toFixed(1)).join(', ')} ms`)
  }
})
