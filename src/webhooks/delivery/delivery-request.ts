/** A job as a request to its receiver: Standard Webhooks headers, the trace it belongs to, and what it is. */
import { hash } from 'node:crypto'
import type { LeasedJob } from '../../dispatch/leased-job.ts'
import type { Subscription, Unsealed } from '../subscriptions/subscription.ts'
import { sign } from './signature.ts'
import type { DeliveryRequest } from './webhook-client.ts'

export function buildDeliveryRequest(
  job: LeasedJob,
  { url, timeoutMs }: Pick<Subscription, 'url' | 'timeoutMs'>,
  { headers, secrets }: Unsealed,
  nowMs: number,
): DeliveryRequest {
  const body = bodyOf(job)
  const id = messageId(job)
  const timestampS = Math.floor(nowMs / 1_000)
  const live = secrets.filter(({ expiresAtMs }) => expiresAtMs > nowMs).map(({ text }) => text)
  return {
    url,
    timeoutMs,
    body,
    headers: {
      'content-type': 'application/json',
      ...headers,
      'user-agent': 'Sluice',
      'webhook-id': id,
      'webhook-timestamp': `${timestampS}`,
      'webhook-signature': sign(live, id, timestampS, body),
      ...(job.traceparent === undefined ? {} : { traceparent: job.traceparent }),
    },
  }
}

function bodyOf({ queue, key, name, attemptsMade, attempts, data }: LeasedJob): string {
  const told = { id: `${queue}:${key}`, queue, name, attempt: attemptsMade + 1, attempts }
  return `${JSON.stringify(told).slice(0, -1)},"data":${data}}`
}

/**
 * The same for each attempt of a job, so that a receiver can tell a repeat; another for a job that has the key of one that
 * was removed. A digest, since an id may hold dots, which separate what is signed.
 */
function messageId({ queue, key, createdAtMs }: LeasedJob): string {
  return `msg_${hash('sha256', `${queue}:${key}:${createdAtMs}`, 'base64url').slice(0, 22)}`
}
