/** Requests that no operation of the document answers to: other methods, other paths. HEAD comes with GET, /docs is a library's. */
import { METHODS } from 'node:http'
import * as fc from 'fast-check'
import { anyJson, anyText, encode, rawSegments } from './hostile.ts'
import type { Operation, Response } from './operations.ts'

const problem = { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } }
const anything: Response = { description: '' }
const refused = (...codes: string[]): Response => ({
  description: codes.map((code) => `\`${code}\``).join(),
  content: problem,
})

/** In the place of an operation. */
export const nothing: Operation = {
  id: 'nothing',
  responses: {
    ...{ 200: anything, 302: anything, 304: anything },
    400: refused('BAD_HTTP', 'INVALID_REQUEST', 'INVALID_JSON', 'EMPTY_BODY', 'JSON_TOO_DEEP', 'FORBIDDEN_KEY'),
    404: refused('ROUTE_NOT_FOUND', 'JOB_NOT_FOUND'),
    405: refused('METHOD_NOT_ALLOWED'),
    413: refused('PAYLOAD_TOO_LARGE'),
    415: refused('UNSUPPORTED_MEDIA_TYPE'),
    422: refused('INVALID_NAME'),
  },
  answersTo: () => true,
  cases: fc
    .record({
      // CONNECT is no request for a resource; raw-bytes.test.ts sends it.
      method: fc.constantFrom('GET', 'HEAD', 'POST', ...METHODS.filter((method) => method !== 'CONNECT')),
      url: fc.oneof(
        fc.constantFrom('/', '/jobs', '/jobs/fuzz:seen', '/jobs/batch', '/health', '/stats', '/docs', '/docs/', '/queues'),
        fc.constantFrom('/queues/fuzz', '/jobs/fuzz:seen/', '/jobs/fuzz:seen/x', '//', '/JOBS', '/jobs//events', '/metrics'),
        fc.tuple(fc.constantFrom('/', '/jobs/', '/docs/', '/docs/static/', '/problems/', '/queues/'), rawSegments).map(join),
        fc.array(fc.oneof(anyText.map(encode), rawSegments), { maxLength: 4 }).map((parts) => `/${parts.join('/')}`),
      ),
      headers: fc.constantFrom<Record<string, string>>({}, { 'content-type': 'application/json' }, { accept: 'text/html' }),
      payload: fc.oneof(fc.constant(''), anyJson),
    })
    .filter(({ method, url }) => !(method === 'GET' && url.endsWith('/events'))),
} // biome-ignore format: a list to read, not a column

function join(parts: string[]): string {
  return parts.join('')
}
