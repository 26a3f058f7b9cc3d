/** Invariants beyond the shape of a response, by operationId. Operations that are not named have none. */
import type { HttpResponse, Send } from './clients.ts'
import { jobInvariants } from './job-invariants.ts'
import type { LeaseBook } from './lease-book.ts'
import { createLeaseInvariants, type LeaseInvariants } from './lease-invariants.ts'
import type { Case } from './operations.ts'
import { createSubscriptionInvariants, type SubscriptionInvariants } from './subscription-invariants.ts'

/** Returns the violations. */
export type Check = (testCase: Case, response: HttpResponse, send: Send) => Promise<string[]> | string[]

export interface Invariants {
  /** Called before the request is sent. */
  begin(operationId: string, testCase: Case): void
  /** Called after the check, or if there was no response. */
  end(testCase: Case): void
  checks: Record<string, Check>
}

export interface AllInvariants {
  begin: Invariants['begin']
  end: Invariants['end']
  check(operationId: string, testCase: Case, response: HttpResponse, send: Send): Promise<string[]>
  leases: LeaseInvariants
  subscriptions: SubscriptionInvariants
}

export function createInvariants(book: LeaseBook): AllInvariants {
  const leases = createLeaseInvariants(book)
  const subscriptions = createSubscriptionInvariants()
  const all = [leases, subscriptions]
  const checks: Record<string, Check> = Object.assign({}, jobInvariants, ...all.map((one) => one.checks))
  return {
    leases,
    subscriptions,
    begin(operationId, testCase) {
      for (const { begin } of all) begin(operationId, testCase)
    },
    end(testCase) {
      for (const { end } of all) end(testCase)
    },
    check: async (operationId, testCase, response, send) =>
      (await checks[operationId]?.(testCase, response, send)) ?? [],
  }
}
