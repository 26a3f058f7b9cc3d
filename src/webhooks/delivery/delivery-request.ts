/**
 * Builds the HTTP request that delivers a job to its endpoint: Standard Webhooks headers, trace context and
 * JSON body.
 */
import { hash } from 'node:crypto'
import type { LeasedJob } from '../../dispatch/leased-job.ts'
import type { DeliveryRequest } from '../endpoints/webhook-client.ts'
import type { Subscription, Unsealed } from '../subscriptions/subscription.ts'
import { sign } from './signature.ts'

/** `nowMs`, since 1970, dates the request and selects the secrets that have not expired. */
export function buildDeliveryRequest(
  job: LeasedJob,
  { url, timeoutMs }: Pick<Subscription, 'url' | 'timeoutMs'>,
  { headers, secrets }: Unsealed,
  nowMs: number,
): DeliveryRequest {
  const body = encodeBody(job)
  const id = messageId(job)
  const timestampS = Math.floor(nowMs / 1_000)
  const activeSecrets = secrets.filter(({ expiresAtMs }) => expiresAtMs > nowMs).map(({ text }) => text)
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
      'webhook-signature': sign(activeSecrets, id, timestampS, body),
      ...(job.traceparent === undefined ? {} : { traceparent: job.traceparent }),
    },
  }
}

const OBJECT_END = Buffer.from('}')

/** `data` is JSON text already, so it is appended instead of being parsed and encoded again. */
function encodeBody({ queue, key, name, attemptsMade, attempts, data }: LeasedJob): Buffer {
  const fields = { id: `${queue}:${key}`, queue, name, attempt: attemptsMade + 1, attempts }
  return Buffer.concat([Buffer.from(`${JSON.stringify(fields).slice(0, -1)},"data":`), data, OBJECT_END])
}

/**
 * The same for every attempt of a job, so that the endpoint can recognise a repeat. The creation time
 * distinguishes a job from a removed one with the same id. A digest, because an id may contain dots, which
 * separate the signed parts.
 */
function messageId({ queue, key, createdAtMs }: LeasedJob): string {
  return `msg_${hash('sha256', `${queue}:${key}:${createdAtMs}`, 'base64url').slice(0, 22)}`
}
