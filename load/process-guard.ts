/**
 * Ends a process when this one ends, however that happens. A shell waits on a pipe that only this process holds open: when
 * the pipe closes, as it does even after SIGKILL, the shell kills the process and removes its folder.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'

export interface ProcessGuard {
  /** The process has ended already: from now on its pid may be that of another. Idempotent. */
  release(): Promise<void>
}

const SCRIPT = `trap '' INT TERM HUP
  read -r released
  [ "$released" = released ] && exit
  kill -9 "$1"
  rm -rf "$2"`

/** `folder`: removed once the process was killed. */
export function guardProcess(pid: number, folder: string): ProcessGuard {
  const shell = spawn('sh', ['-c', SCRIPT, 'guard', `${pid}`, folder], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // Signals to the process group, as from a terminal, must not reach the guard.
    detached: true,
  })
  const ended = once(shell, 'exit')
  ended.catch(() => {})
  // The guard must not keep this process alive.
  shell.unref()
  const input = shell.stdin as unknown as Socket
  input.unref()
  input.on('error', () => {})
  return {
    async release() {
      shell.ref()
      input.end('released\n')
      await ended
    },
  }
}
