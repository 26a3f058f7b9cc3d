/**
 * A naive service for control runs. It passes each job to BullMQ with its defaults, which wait while Redis is down, resend
 * commands without a reply, and have no deadline.
 */
import { createServer } from 'node:http'
import { Queue } from 'bullmq'

const address = new URL(process.env['REDIS_URL']!)
const connection =
  address.protocol === 'unix:' ? { path: address.pathname } : { host: address.hostname, port: +address.port }
const queues = new Map<string, Queue>()

function open(name: string): Queue {
  let queue = queues.get(name)
  if (!queue) {
    queue = new Queue(name, { connection })
    queue.on('error', () => {})
    queues.set(name, queue)
  }
  return queue
}

async function handle(method: string, path: string, body: string): Promise<[status: number, answer: object]> {
  if (path.startsWith('/health/')) return [200, {}]
  if (method === 'POST') {
    const { queue, name, data, opts } = JSON.parse(body)
    const job = await open(queue).add(name, data, opts)
    return [201, { id: `${queue}:${job.id}` }]
  }
  const [queue, key] = path.replace('/jobs/', '').split(':') as [string, string]
  const job = await open(queue).getJob(key)
  return job ? [200, { id: `${queue}:${key}`, state: await job.getState() }] : [404, {}]
}

const server = createServer(async (request, response) => {
  let body = ''
  for await (const chunk of request) body += chunk
  const [status, answer] = await handle(request.method!, request.url!, body).catch(
    (error: Error): [number, object] => [500, { message: error.message }],
  )
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
})
server.listen(Number(process.env['PORT']), '127.0.0.1', () => {
  const { port } = server.address() as { port: number }
  console.log(`Server listening at http://127.0.0.1:${port}`)
})
