/** Owns all that a scenario starts: processes, proxies, clients. When it ends, all of it ends. */
import { resolve } from 'node:path'
import { type Browser, createBrowser } from './clients.ts'
import { createLauncher } from './launcher.ts'
import { type RedisOptions, type RedisServer, type Service, startRedis, startService } from './processes.ts'
import { type Place, startProxy, type TcpProxy } from './proxy.ts'
import { sleep } from './wait.ts'

export interface Stage {
  /** Where its processes keep their files. */
  readonly dir: string
  redis(options?: RedisOptions): Promise<RedisServer>
  /** Resolves when it is ready. */
  service(redisUrl: string, env?: Record<string, string>): Promise<Service>
  /** A service that takes no part of src: the file of its process. */
  other(file: string, redisUrl: string): Promise<Service>
  /** Starts one that may not live, waits that long, ends it; returns what it has written. */
  tryService(redisUrl: string, env: Record<string, string>, forMs: number): Promise<string>
  /** Runs another program of the project to its end; returns what it has written. */
  command(name: string, args: string[], env: Record<string, string>): Promise<string>
  proxy(target: Place): Promise<TcpProxy>
  browser(): Browser
  /** How many processes have ended though nobody here ended them. */
  crashes(): number
  /** Called at the end, the last first. */
  onEnd(end: () => Promise<unknown> | unknown): void
  end(): Promise<void>
}

/** The service from source needs no build; `dist/server.js` is what ships. */
export type Entry = 'src/server.ts' | 'dist/server.js'

/** `settings`: of every service. */
export function createStage(entry: Entry, settings: Record<string, string> = {}): Stage {
  const launcher = createLauncher()
  const ends: (() => Promise<unknown> | unknown)[] = []

  function browser(): Browser {
    const opened = createBrowser()
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
    service: (redisUrl, env = {}) =>
      startService(launcher, browser(), program(entry), {
        ...{ REDIS_URL: redisUrl, LOG_REQUESTS: 'none' },
        ...settings,
        ...env,
      }),
    other: (file, redisUrl) => startService(launcher, browser(), program(file), { REDIS_URL: redisUrl }),
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
    browser,
    crashes: launcher.crashes,
    onEnd: (end) => void ends.push(end),
    async end() {
      for (let end = ends.pop(); end; end = ends.pop()) await end()
      await launcher.close()
    },
  }
}

/** How Node is to be called with it. */
function program(file: string): string[] {
  return file.endsWith('.ts') ? ['--import', import.meta.resolve('tsx'), resolve(file)] : [resolve(file)]
}
