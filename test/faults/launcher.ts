/** Starts processes, and ends them by pid even if this process is killed. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { until } from './timing.ts'

export type Child = ChildProcessByStdio<null, Readable, Readable>

export interface Launched {
  child: Child
  /** Its output so far, stdout and stderr. */
  output(): string
  /** Sends the signal and resolves with the exit code. 0: sends none, but expects the process to exit. */
  end(signal: 'SIGKILL' | 'SIGTERM' | 0): Promise<number | null>
}

export interface LaunchOptions {
  env: Record<string, string>
  cwd: string
}

export interface Launcher {
  /** A folder for all processes, removed at the end. */
  readonly dir: string
  /** A new folder in it. */
  folder(): Promise<string>
  /** Starts a process, which counts as crashed if it exits before `end` is called. */
  launch(command: string, args: string[], options: LaunchOptions): Launched
  /** How many processes exited before `end` was called. */
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

/** A shell that receives each pid on stdin, and kills the remaining ones when stdin closes, as it does if this process is killed. */
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
    // Signals to the process group, as from a terminal, must not reach the guard.
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

/** Reads continuously, because a full pipe would block the process. */
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
