/**
 * Clients as careful people write them: keep-alive, an idempotency key, and the same request again, at the next replica,
 * when an answer says "not now" or does not come. And as others write them: without keys, without repeats, or the worst of
 * both, repeats without keys. What they are told goes into the history.
 */
import { Agent, type IncomingHttpHeaders, type RequestOptions, request } from 'node:http'
import type { History, Operation, Outcome, Try } from './history.ts'
import { sleep } from './wait.ts'

export interface Answer {
  /** 0: there was none. */
  status: number
  headers: IncomingHttpHeaders
  body: string
  ms: number
  /** Why there was none: ECONNREFUSED, ECONNRESET, …, or IMPATIENT. */
  lost: string | undefined
}

export interface Request {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE'
  headers?: Record<string, string>
  body?: string
  /** The client hangs up after this. */
  timeoutMs?: number
}

export interface Browser {
  /** Never rejects. */
  ask(url: string, request?: Request): Promise<Answer>
  readonly isClosed: boolean
  close(): void
}

/** Sockets are kept and used again, as many as are needed at once. */
export function createBrowser(): Browser {
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
  return new Promise<Answer>((resolve) => {
    const began = performance.now()
    let isOver = false
    const finish = (answer: Omit<Answer, 'ms'>) => {
      if (isOver) return
      isOver = true
      clearTimeout(impatience)
      resolve({ ...answer, ms: performance.now() - began })
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
      // An answer that is cut in the middle is none.
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
  browser: Browser
  history: History
  queue: string
  keys: Keys
  retries: boolean
  /** Which replica is asked: by client and try. Asked each time, as it may come and go. */
  choose(client: number, tries: number): string
  /** For one answer. */
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

/** Enqueues one job, as often as it takes or its patience lasts; resolves with what has become of it, which is also in the history. */
export async function enqueue(options: EnqueuerOptions, client: number): Promise<Operation> {
  const { browser, history, queue, keys, retries, choose, timeoutMs = 10_000, patienceMs = 30_000 } = options
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
    const answer = await browser.ask(`${choose(client, tries)}/jobs`, { headers, body, timeoutMs })
    const told = readAnswer(answer)
    operation.tries.push({ at, ms: answer.ms, ...told })
    if (told.outcome === 'ok') {
      operation.id = (JSON.parse(answer.body) as { id: string }).id
      outcome = 'ok'
      break
    }
    // Once it may have happened, no later refusal takes that back.
    if (told.outcome === 'unknown') outcome = 'unknown'
    if (!retries || browser.isClosed || performance.now() - operation.invokedAt > patienceMs) break
    await sleep(Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries))
  }
  operation.outcome = outcome
  return operation
}

function readAnswer({ status, headers, body, lost }: Answer): Omit<Try, 'at' | 'ms'> {
  const hasRetryAfter = headers['retry-after'] !== undefined
  if (status === 0) {
    // Refused before anything was sent; whatever else ended the connection may have come after the job had arrived.
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
