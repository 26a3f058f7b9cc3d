/** Starts processes, and ends them by pid, however this process itself ends. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { until } from './wait.ts'

export type Child = ChildProcessByStdio<null, Readable, Readable>

export interface Launched {
  child: Child
  /** Everything it has written so far, to both streams. */
  output(): string
  /** Sends it, and resolves with the exit code. 0: none is sent, but its end is expected from now on. */
  end(signal: 'SIGKILL' | 'SIGTERM' | 0): Promise<number | null>
}

export interface LaunchOptions {
  env: Record<string, string>
  cwd: string
}

export interface Launcher {
  /** A folder for all of them, removed at the end. */
  readonly dir: string
  /** A new folder in it. */
  folder(): Promise<string>
  /** Until it is ended by the caller it is expected to live. */
  launch(command: string, args: string[], options: LaunchOptions): Launched
  /** How many have ended though nobody had ended them. */
  crashes(): number
  close(): Promise<void>
}

export function createLauncher(): Launcher {
  const dir = mkdtempSync(join(tmpdir(), 'sluice-faults-'))
  const children = new Set<Child>()
  const guard = startGuard(dir)
  let crashes = 0
  let folders = 0

  return {
    dir,
    async folder() {
      const path = join(dir, `${folders++}`)
      await mkdir(path)
      return path
    },
    launch(command, args, options) {
      const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
      children.add(child)
      guard.add(child.pid!)
      let isExpected = false
      const gone = once(child, 'exit').then(([code]) => {
        children.delete(child)
        guard.remove(child.pid!)
        if (!isExpected) crashes++
        return code as number | null
      })
      return {
        child,
        output: outputOf(child),
        end(signal) {
          isExpected = true
          if (signal !== 0) child.kill(signal)
          return gone
        },
      }
    },
    crashes: () => crashes,
    async close() {
      for (const child of children) child.kill('SIGKILL')
      await until('all processes are gone', () => children.size === 0)
      await guard.end()
    },
  }
}

/**
 * A shell that is told of each pid, and kills those that are left when nobody is there any more to tell it anything: also
 * when this process is killed.
 */
function startGuard(dir: string) {
  const script = `trap '' INT TERM HUP ALRM
    while read -r what pid; do
      case $what in
        add) all="$all $pid " ;;
        remove) all="\${all%% $pid *} \${all#* $pid }" ;;
      esac
    done
    for pid in $all; do kill -9 "$pid"; done
    rm -rf "$1"`
  const shell = spawn('sh', ['-c', script, 'guard', dir], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // A signal to the group of this process, as from a terminal, is not for it.
    detached: true,
  })
  const ended = once(shell, 'exit')
  return {
    add: (pid: number) => void shell.stdin.write(`add ${pid}\n`),
    remove: (pid: number) => void shell.stdin.write(`remove ${pid}\n`),
    async end() {
      shell.stdin.end()
      await ended
    },
  }
}

/** Read all the time, as a full pipe would stop the writer. */
function outputOf({ stdout, stderr }: Child): () => string {
  let text = ''
  for (const stream of [stdout, stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', (data) => {
      text += data
    })
  }
  return () => text
}
