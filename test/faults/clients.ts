/**
 * HTTP clients that enqueue jobs and record the responses in a history. Careful clients use keep-alive, an idempotency key
 * and repeats at the next replica after a 503 or no response; others have no keys, do not repeat, or repeat without keys.
 */
import { Agent, type IncomingHttpHeaders, type RequestOptions, request } from 'node:http'
import type { History, Operation, Outcome, Try } from './history.ts'
import { sleep } from './timing.ts'

export interface HttpResponse {
  /** 0: no response. */
  status: number
  headers: IncomingHttpHeaders
  body: string
  ms: number
  /** Why there was no response: ECONNREFUSED, ECONNRESET, …, or IMPATIENT (the client's timeout). */
  lost: string | undefined
}

export interface Request {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE'
  headers?: Record<string, string>
  body?: string
  /** The client closes the connection after this. */
  timeoutMs?: number
}

export interface HttpClient {
  /** Never rejects. */
  ask(url: string, request?: Request): Promise<HttpResponse>
  readonly isClosed: boolean
  close(): void
}

/** A client with keep-alive connections, without a limit on their number. */
export function createHttpClient(): HttpClient {
  const agent = new Agent({ keepAlive: true, scheduling: 'lifo' })
  let isClosed = false
  return {
    ask: (url, options = {}) => ask(agent, url, options),
    get isClosed() {
      return isClosed
    },
    close() {
      isClosed = true
      agent.destroy()
    },
  }
}

function ask(agent: Agent, url: string, { method, headers, body, timeoutMs = 10_000 }: Request) {
  return new Promise<HttpResponse>((resolve) => {
    const startedAt = performance.now()
    let isOver = false
    const finish = (response: Omit<HttpResponse, 'ms'>) => {
      if (isOver) return
      isOver = true
      clearTimeout(impatience)
      resolve({ ...response, ms: performance.now() - startedAt })
    }
    const lose = (lost: string) => finish({ status: 0, headers: {}, body: '', lost })
    const options: RequestOptions = {
      agent,
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      headers: {
        ...(body === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
        ...headers,
      },
    }
    const sent = request(url, options, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => {
        text += chunk
      })
      response.on('end', () =>
        finish({ status: response.statusCode!, headers: response.headers, body: text, lost: undefined }),
      )
      // A truncated response counts as none.
      response.on('error', (error: NodeJS.ErrnoException) => lose(error.code ?? error.message))
    })
    const impatience = setTimeout(() => {
      lose('IMPATIENT')
      sent.destroy()
    }, timeoutMs)
    sent.on('error', (error: NodeJS.ErrnoException) => lose(error.code ?? error.message))
    sent.end(body)
  })
}

/** `header`: an Idempotency-Key; `jobId`: `opts.jobId`; `none`: the service makes the key. */
export type Keys = 'header' | 'jobId' | 'none'

export interface EnqueuerOptions {
  httpClient: HttpClient
  history: History
  queue: string
  keys: Keys
  retries: boolean
  /** Chooses a replica, by client and try, before each request. */
  choose(client: number, tries: number): string
  /** For one response. */
  timeoutMs?: number
  /** For all tries of an operation. */
  patienceMs?: number
  opts?: object
  /** More of the job's data, beside its payload. */
  data?: object
  headers?: Record<string, string>
}

const FIRST_PAUSE_MS = 20
const MAX_PAUSE_MS = 200

/** Enqueues one job, with repeats until it succeeds or `patienceMs` ends; returns its entry in the history. */
export async function enqueue(options: EnqueuerOptions, client: number): Promise<Operation> {
  const {
    httpClient,
    history,
    queue,
    keys,
    retries,
    choose,
    timeoutMs = 10_000,
    patienceMs = 30_000,
  } = options
  const operation = history.invoke(client)
  const { payload } = operation
  const body = JSON.stringify({
    queue,
    name: 'n',
    data: { payload, ...options.data },
    opts: { ...options.opts, ...(keys === 'jobId' ? { jobId: payload } : {}) },
  })
  const headers = { ...options.headers, ...(keys === 'header' ? { 'idempotency-key': payload } : {}) }
  let outcome: Outcome = 'fail'
  for (let tries = 0; ; tries++) {
    const at = performance.now()
    const response = await httpClient.ask(`${choose(client, tries)}/jobs`, { headers, body, timeoutMs })
    const result = readResponse(response)
    operation.tries.push({ at, ms: response.ms, ...result })
    if (result.outcome === 'ok') {
      operation.id = (JSON.parse(response.body) as { id: string }).id
      outcome = 'ok'
      break
    }
    // Once the job may exist, a later refusal does not change that.
    if (result.outcome === 'unknown') outcome = 'unknown'
    if (!retries || httpClient.isClosed || performance.now() - operation.invokedAt > patienceMs) break
    await sleep(Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries))
  }
  operation.outcome = outcome
  return operation
}

function readResponse({ status, headers, body, lost }: HttpResponse): Omit<Try, 'at' | 'ms'> {
  const hasRetryAfter = headers['retry-after'] !== undefined
  if (status === 0) {
    // ECONNREFUSED means that nothing was sent; after any other error the job may have arrived.
    const outcome = lost === 'ECONNREFUSED' ? 'fail' : 'unknown'
    return { status, outcome, code: lost, hasRetryAfter }
  }
  if (status === 200 || status === 201) return { status, outcome: 'ok', code: undefined, hasRetryAfter }
  const { code, outcome } = parse(body)
  const isRefused = outcome === 'not_executed' || (status >= 400 && status < 500)
  return { status, outcome: isRefused ? 'fail' : 'unknown', code, hasRetryAfter }
}

function parse(body: string): { code?: string; outcome?: string } {
  try {
    return JSON.parse(body)
  } catch {
    return {}
  }
}
