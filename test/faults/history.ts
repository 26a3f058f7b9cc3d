/**
 * Records what clients tried and how the service responded. An operation is one job that a client enqueues, with all its
 * repeats. `ok`: it was acknowledged. `fail`: every response said that it was not executed. `unknown`: it may exist.
 */
export type Outcome = 'ok' | 'fail' | 'unknown'

/** One HTTP request of an operation, and its response. */
export interface Try {
  /** When it was sent, in the time of `performance.now()`. */
  at: number
  ms: number
  outcome: Outcome
  /** 0: no response. */
  status: number
  /** The problem's code, or why there was no response. */
  code: string | undefined
  hasRetryAfter: boolean
}

export interface Operation {
  /** Identifies the job; part of its data. */
  payload: string
  client: number
  invokedAt: number
  tries: Try[]
  /** `unknown` while the operation is in progress, too. */
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

/** `name` is the prefix of every payload, so that the histories of one Redis do not mix. */
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
