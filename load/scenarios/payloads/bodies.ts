/** Requests whose bodies all differ, sent by each connection in its own order. */
import type autocannon from 'autocannon'
import type { Load } from '../../bench.ts'
import { json } from '../scenario.ts'

/** `bodies`: JSON texts. Each connection begins at another one of them. */
export function postInTurn(path: string, connections: number, bodies: string[]): Load {
  const requests = bodies.map((body) => ({ method: 'POST' as const, path, headers: json, body }))
  let opened = 0
  return {
    path,
    connections,
    method: 'POST',
    headers: json,
    body: bodies[0]!,
    setupClient(client: autocannon.Client) {
      const from = Math.floor((opened++ * requests.length) / connections) % requests.length
      // The same objects for all connections, whose text is then in memory once.
      client.setRequests([...requests.slice(from), ...requests.slice(0, from)])
    },
  }
}
