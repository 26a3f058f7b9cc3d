/**
 * A headless Chromium, driven by the DevTools protocol over a pipe: commands and replies are JSON that ends with a NUL. It is
 * searched on the PATH, or is the file that CHROME_PATH names.
 */
import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import type { Test } from 'tap'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

export interface Page {
  goto(url: string): Promise<void>
  /** Evaluates an expression in the page and resolves with its value; a promise is awaited. */
  evaluate<T>(expression: string): Promise<T>
  /** Errors of scripts, of the console and of the content security policy, and resources that could not be loaded. */
  problems: string[]
}

/** The path of a browser, or `undefined` if there is none. */
export async function findBrowser(env = process.env): Promise<string | undefined> {
  const { CHROME_PATH, PATH = '' } = env
  const folders = PATH.split(delimiter)
  const candidates = CHROME_PATH
    ? [CHROME_PATH]
    : NAMES.flatMap((name) => folders.map((folder) => join(folder, name)))
  for (const candidate of candidates) {
    const isExecutable = await access(candidate, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isExecutable) return candidate
  }
  return undefined
}

/** The browser ends with the test. */
export async function openPage(t: Test, browser: string): Promise<Page> {
  const profile = await mkdtemp(join(tmpdir(), 'sluice-browser-'))
  // Chromium's sandbox does not work for root.
  const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : []
  const child = spawn(
    browser,
    ['--headless=new', '--remote-debugging-pipe', `--user-data-dir=${profile}`, '--no-first-run', ...sandbox],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
  )
  const ended = new Promise((resolve) => child.once('close', resolve))
  const protocol = createProtocol(child.stdio[3] as Writable, child.stdio[4] as Readable)
  t.teardown(async () => {
    protocol.send('Browser.close').catch(() => child.kill('SIGKILL'))
    await ended
    await rm(profile, { recursive: true, force: true, maxRetries: 5 })
  })
  const { targetId } = await protocol.send('Target.createTarget', { url: 'about:blank' })
  const { sessionId } = await protocol.send('Target.attachToTarget', { targetId, flatten: true })
  const send = (method: string, params: object = {}) => protocol.send(method, params, sessionId)
  const problems: string[] = []
  protocol.onEvent((method, params) => {
    const problem = describeProblem(method, params)
    if (problem !== undefined) problems.push(problem)
  })
  for (const domain of ['Runtime', 'Log', 'Page']) await send(`${domain}.enable`)
  return {
    problems,
    async goto(url) {
      const loaded = protocol.nextEvent('Page.loadEventFired')
      const { errorText } = await send('Page.navigate', { url })
      if (errorText) throw new Error(`${url}: ${errorText}`)
      await loaded
    },
    async evaluate(expression) {
      const parameters = { expression, awaitPromise: true, returnByValue: true }
      const { result, exceptionDetails } = await send('Runtime.evaluate', parameters)
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
      return result.value
    },
  }
}

// biome-ignore lint/suspicious/noExplicitAny: what the protocol sends has no types here
type Message = any

function createProtocol(input: Writable, output: Readable) {
  const pending = new Map<number, { resolve(result: Message): void; reject(error: Error): void }>()
  const listeners = new Set<(method: string, params: Message) => void>()
  let lastId = 0
  let text = ''
  output.setEncoding('utf8')
  output.on('data', (chunk: string) => {
    const messages = (text + chunk).split('\0')
    text = messages.pop()!
    for (const message of messages) receive(JSON.parse(message))
  })
  output.on('close', () => {
    for (const { reject } of pending.values()) reject(new Error('The browser ended'))
  })
  input.on('error', () => {})

  function receive({ id, result, error, method, params }: Message): void {
    if (id === undefined) {
      for (const listener of listeners) listener(method, params)
      return
    }
    const waiting = pending.get(id)
    pending.delete(id)
    if (error) waiting?.reject(new Error(error.message))
    else waiting?.resolve(result)
  }

  return {
    send(method: string, params: object = {}, sessionId?: string): Promise<Message> {
      const id = ++lastId
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve, reject })
        input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
      })
    },
    onEvent: (listener: (method: string, params: Message) => void) => void listeners.add(listener),
    nextEvent(wanted: string): Promise<Message> {
      return new Promise((resolve) => {
        const listener = (method: string, params: Message) => {
          if (method !== wanted) return
          listeners.delete(listener)
          resolve(params)
        }
        listeners.add(listener)
      })
    },
  }
}

function describeProblem(method: string, params: Message): string | undefined {
  if (method === 'Runtime.exceptionThrown') {
    const { exception, text } = params.exceptionDetails
    return exception?.description ?? text
  }
  if (method === 'Runtime.consoleAPICalled' && params.type === 'error')
    return params.args.map(({ value, description }: Message) => value ?? description).join(' ')
  if (method === 'Log.entryAdded' && params.entry.level === 'error')
    return `${params.entry.source}: ${params.entry.text} ${params.entry.url ?? ''}`
  return undefined
}
