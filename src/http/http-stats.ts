/** What the HTTP server reports in GET /stats: connections, waits, and what was refused. */
import { Type } from 'typebox'
import type { FeatureStat } from '../feature.ts'
import type { Waits } from './clients/waits.ts'
import type { HttpGuards } from './http-server.ts'

export function createHttpStats(
  { sockets, sendBudget, refusals, refusalPace }: HttpGuards,
  waits: Waits,
): Record<string, FeatureStat> {
  return {
    connections: {
      schema: Connections,
      read: () => ({ ...sockets.stats(), ...sendBudget.stats(), delayedRefusals: refusalPace.delayed() }),
    },
    waits: { schema: WaitsSchema, read: waits.stats },
    refused: { schema: Refused, read: refusals.counts },
  }
}

const integer = (description: string) => Type.Integer({ description })

const Connections = Type.Object(
  {
    open: integer('Connections of clients.'),
    disconnected: Type.Object(
      {
        writeTimeout: integer('Clients that took nothing for WRITE_TIMEOUT.'),
        buffered: integer('Clients that read slowly while MAX_BUFFERED_BYTES was exceeded.'),
        pipelined: integer('Clients that pipelined more than MAX_PIPELINED_REQUESTS.'),
      },
      { description: 'Connections that the service has closed since the start.' },
    ),
    delayedRefusals: integer(
      'Refusals that were answered later because of MAX_REFUSALS_PER_SECOND, since the start.',
    ),
    bufferedBytes: integer('Bytes that wait to be sent to clients.'),
    maxBufferedBytes: integer('MAX_BUFFERED_BYTES.'),
    refusedAnswers: integer('Large answers refused with 503 because of MAX_BUFFERED_BYTES, since the start.'),
  },
  { title: 'ConnectionStats', description: 'Connections of clients, and what waits to be sent to them.' },
)

const WaitsSchema = Type.Object(
  {
    open: integer('Requests that wait: `wait`, takes of HTTP workers, event streams.'),
    max: integer('MAX_WAITS.'),
    refused: integer('Requests that may not wait since too many did, since the start.'),
  },
  { title: 'WaitStats', description: 'Requests that wait.' },
)

const Refused = Type.Record(Type.String(), Type.Integer(), {
  description: 'Requests that were refused or failed since the start, by code.',
})
