/** Changes of one queue's subscription that this process makes: one at a time, in the order they were asked for. */
import { REPEAT_LATER, SluiceError } from '../../errors.ts'

/** Runs the change after those asked for before it. Rejects with OVERLOADED if it would begin too late. */
export type ChangesInTurn = <Result>(queue: string, change: () => Promise<Result>) => Promise<Result>

/** How late a change may begin, ms: a client waits for its answer, and Redis may not respond to the changes before it. */
const WAIT_MS = 5_000

export function createChangesInTurn(waitMs = WAIT_MS): ChangesInTurn {
  /** The last change of each queue that has one under way. It never rejects. */
  const last = new Map<string, Promise<void>>()

  return function runInTurn<Result>(queue: string, change: () => Promise<Result>): Promise<Result> {
    const latestMs = performance.now() + waitMs
    const result = (last.get(queue) ?? Promise.resolve()).then(() => {
      if (performance.now() > latestMs) throw changedElsewhere()
      return change()
    })
    const ended: Promise<void> = result.then(forget, forget)
    last.set(queue, ended)
    return result

    function forget(): void {
      if (last.get(queue) === ended) last.delete(queue)
    }
  }
}

export function changedElsewhere(): SluiceError {
  return new SluiceError('OVERLOADED', {
    detail: `Other requests change this subscription at the same time. ${REPEAT_LATER}`,
    outcome: 'not_executed',
  })
}
