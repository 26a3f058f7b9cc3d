/** What an answer says beyond its shape, and whether it is so. By operationId; operations that are not named promise nothing more. */
import type { Answer, Ask } from './clients.ts'
import { jobPromises } from './job-promises.ts'
import type { LeaseBook } from './lease-book.ts'
import { createLeasePromises, type LeasePromises } from './lease-promises.ts'
import type { Case } from './operations.ts'
import { createSubscriptionPromises, type SubscriptionPromises } from './subscription-promises.ts'

/** Says what is not as it was promised, and nothing when all is. */
export type Check = (asked: Case, answer: Answer, ask: Ask) => Promise<string[]> | string[]

export interface Promises {
  /** Before it is asked. */
  begin(operationId: string, asked: Case): void
  /** After its check, or when there was none. */
  end(asked: Case): void
  checks: Record<string, Check>
}

export interface AllPromises {
  begin: Promises['begin']
  end: Promises['end']
  check(operationId: string, asked: Case, answer: Answer, ask: Ask): Promise<string[]>
  leases: LeasePromises
  subscriptions: SubscriptionPromises
}

export function createPromises(book: LeaseBook): AllPromises {
  const leases = createLeasePromises(book)
  const subscriptions = createSubscriptionPromises()
  const all = [leases, subscriptions]
  const checks: Record<string, Check> = Object.assign({}, jobPromises, ...all.map((one) => one.checks))
  return {
    leases,
    subscriptions,
    begin(operationId, asked) {
      for (const { begin } of all) begin(operationId, asked)
    },
    end(asked) {
      for (const { end } of all) end(asked)
    },
    check: async (operationId, asked, answer, ask) => (await checks[operationId]?.(asked, answer, ask)) ?? [],
  }
}
