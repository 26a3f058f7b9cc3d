/**
 * The traffic beside an attack, as a process of its own, so that the attacker's work does not delay what it measures: at a
 * fixed rate it enqueues a job and reads it. Prints `[ms since 1970, ms taken, status]` for each response; after SIGTERM, also
 * for requests without a response within PATIENCE ms, with status 0.
 */
import { createHttpClient } from './clients.ts'
import { sleep } from './timing.ts'

const { URL: url, QUEUE: queue, RATE, KEY, PATIENCE } = process.env
const httpClient = createHttpClient()
const headers = { authorization: `Bearer ${KEY}` }
const startedAt = performance.now()
/** When each request without a response was sent. */
const pending = new Set<{ at: number }>()
let isStopped = false

async function ask(path: string, body?: string): Promise<string> {
  const asked = { at: now() }
  pending.add(asked)
  const response = await httpClient.ask(`${url}${path}`, { headers, ...(body ? { body } : {}) })
  pending.delete(asked)
  print(asked.at, response.ms, response.status)
  return response.body
}

function print(at: number, ms: number, status: number): void {
  console.log(JSON.stringify([at, ms, status]))
}

function now(): number {
  return performance.timeOrigin + performance.now()
}

async function enqueueAndRead(index: number): Promise<void> {
  const created = await ask('/jobs', JSON.stringify({ queue, name: 'n', data: { index } }))
  const { id } = parse(created)
  if (id) await ask(`/jobs/${id}`)
}

function parse(body: string): { id?: string } {
  try {
    return JSON.parse(body)
  } catch {
    return {}
  }
}

process.once('SIGTERM', async () => {
  isStopped = true
  const deadline = performance.now() + Number(PATIENCE)
  while (pending.size > 0 && performance.now() < deadline) await sleep(10)
  for (const { at } of pending) print(at, now() - at, 0)
  process.exit(0)
})

for (let sent = 0; !isStopped; await sleep(1)) {
  const due = Math.floor((Number(RATE) * (performance.now() - startedAt)) / 1_000)
  for (; sent < due; sent++) void enqueueAndRead(sent)
}
