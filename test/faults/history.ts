/**
 * What was tried and what was said of it: an operation is one job that a client wants enqueued, however often it has to
 * ask. `ok`: it was acknowledged. `fail`: every answer said that it was not executed. `unknown`: it may be there.
 */
export type Outcome = 'ok' | 'fail' | 'unknown'

/** One HTTP request of an operation, and its answer. */
export interface Try {
  /** When it was sent, ms on the clock of this process. */
  at: number
  ms: number
  outcome: Outcome
  /** 0: there was no answer. */
  status: number
  /** The problem's code; where there was no answer, why. */
  code: string | undefined
  hasRetryAfter: boolean
}

export interface Operation {
  /** What tells its job from every other: it is in the job's data. */
  payload: string
  client: number
  invokedAt: number
  tries: Try[]
  /** `unknown` also as long as it is not over. */
  outcome: Outcome
  /** The id that was acknowledged. */
  id: string | undefined
}

export interface History {
  readonly operations: readonly Operation[]
  /** What the nemesis did, and when. */
  readonly marks: readonly { at: number; what: string }[]
  invoke(client: number): Operation
  mark(what: string): void
}

/** `name` stands at the front of every payload, so that histories of one Redis do not mix. */
export function createHistory(name: string): History {
  const operations: Operation[] = []
  const marks: { at: number; what: string }[] = []
  return {
    operations,
    marks,
    invoke(client) {
      const operation: Operation = {
        payload: `${name}-${operations.length}`,
        client,
        invokedAt: performance.now(),
        tries: [],
        outcome: 'unknown',
        id: undefined,
      }
      operations.push(operation)
      return operation
    },
    mark: (what) => void marks.push({ at: performance.now(), what }),
  }
}

export function triesOf({ operations }: History): Try[] {
  return operations.flatMap(({ tries }) => tries)
}
