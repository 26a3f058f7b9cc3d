/** Owns everything that a scenario starts: processes, proxies, clients. Ending it ends all of them. */
import { resolve } from 'node:path'
import { createHttpClient, type HttpClient } from './clients.ts'
import { createLauncher, type Launched } from './launcher.ts'
import { type RedisOptions, type RedisServer, type Service, startRedis, startService } from './processes.ts'
import { type Place, startProxy, type TcpProxy } from './proxy.ts'
import { sleep } from './timing.ts'

export interface Testbed {
  /** The folder of its processes. */
  readonly dir: string
  redis(options?: RedisOptions): Promise<RedisServer>
  /** Starts a service; resolves when it is ready. `wrapper`: a command that executes its arguments, such as `unshare -m`. */
  service(redisUrl: string, env?: Record<string, string>, wrapper?: string[]): Promise<Service>
  /** Starts another service for control runs, from its file. */
  otherService(
    file: string,
    redisUrl: string,
    env?: Record<string, string>,
    wrapper?: string[],
  ): Promise<Service>
  /** Starts a program of the tests, from its file. */
  program(file: string, env: Record<string, string>): Launched
  /** Starts a service that may exit, kills it after `forMs`, and returns its output. */
  tryService(redisUrl: string, env: Record<string, string>, forMs: number): Promise<string>
  /** Runs another entry point, for example `cli/key`, to its end; returns its output. */
  command(name: string, args: string[], env: Record<string, string>): Promise<string>
  proxy(target: Place): Promise<TcpProxy>
  httpClient(): HttpClient
  /** How many processes ended without being ended from here. */
  crashes(): number
  /** Registers a cleanup; cleanups run in reverse order. */
  onEnd(end: () => Promise<unknown> | unknown): void
  end(): Promise<void>
}

/** The source needs no build; `dist/server.js` is what ships. */
export type Entry = 'src/server.ts' | 'dist/server.js'

/** `settings`: environment variables of every service. */
export function createTestbed(entry: Entry, settings: Record<string, string> = {}): Testbed {
  const launcher = createLauncher()
  const ends: (() => Promise<unknown> | unknown)[] = []

  function httpClient(): HttpClient {
    const opened = createHttpClient()
    ends.push(() => opened.close())
    return opened
  }

  function run(file: string, args: string[], env: Record<string, string>) {
    const all = { PATH: process.env['PATH'] ?? '', ...env }
    return launcher.launch(process.execPath, [...program(file), ...args], { env: all, cwd: launcher.dir })
  }

  return {
    dir: launcher.dir,
    async redis(options = {}) {
      const server = await startRedis(launcher, options)
      ends.push(() => server.client.disconnect())
      return server
    },
    service: (redisUrl, env = {}, wrapper = []) =>
      startService(launcher, httpClient(), [...wrapper, process.execPath, ...program(entry)], {
        ...{ REDIS_URL: redisUrl, LOG_REQUESTS: 'none' },
        ...settings,
        ...env,
      }),
    otherService: (file, redisUrl, env = {}, wrapper = []) =>
      startService(launcher, httpClient(), [...wrapper, process.execPath, ...program(file)], {
        REDIS_URL: redisUrl,
        ...env,
      }),
    program: (file, env) => run(file, [], env),
    async tryService(redisUrl, env, forMs) {
      const { output, end } = run(entry, [], { ...env, REDIS_URL: redisUrl })
      await Promise.race([end(0), sleep(forMs)])
      await end('SIGKILL')
      return output()
    },
    async command(name, args, env) {
      const { output, end } = run(entry.replace('server', name), args, env)
      const code = await end(0)
      if (code !== 0) throw new Error(`${name} ended with ${code}: ${output()}`)
      return output()
    },
    async proxy(target) {
      const proxy = await startProxy(target)
      ends.push(() => proxy.close())
      return proxy
    },
    httpClient,
    crashes: launcher.crashes,
    onEnd: (end) => void ends.push(end),
    async end() {
      for (let end = ends.pop(); end; end = ends.pop()) await end()
      await launcher.close()
    },
  }
}

/** The arguments of Node for a file. */
function program(file: string): string[] {
  return file.endsWith('.ts') ? ['--import', import.meta.resolve('tsx'), resolve(file)] : [resolve(file)]
}
