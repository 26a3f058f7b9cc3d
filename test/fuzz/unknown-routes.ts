/** Requests for methods and paths that the document does not contain. HEAD comes with GET, and /docs belongs to a library. */
import { METHODS } from 'node:http'
import * as fc from 'fast-check'
import { anyJson, anyText, encode, rawSegments } from './hostile-values.ts'
import type { Operation, Response } from './operations.ts'

const problem = { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } }
const anything: Response = { description: '' }
const rejected = (...codes: string[]): Response => ({
  description: codes.map((code) => `\`${code}\``).join(),
  content: problem,
})

/** Used like an operation. */
export const unknownRoute: Operation = {
  id: 'unknownRoute',
  responses: {
    ...{ 200: anything, 302: anything, 304: anything },
    400: rejected('BAD_HTTP', 'INVALID_REQUEST', 'INVALID_JSON', 'EMPTY_BODY', 'JSON_TOO_DEEP', 'FORBIDDEN_KEY'),
    404: rejected('ROUTE_NOT_FOUND', 'JOB_NOT_FOUND'),
    405: rejected('METHOD_NOT_ALLOWED'),
    413: rejected('PAYLOAD_TOO_LARGE'),
    415: rejected('UNSUPPORTED_MEDIA_TYPE'),
    421: rejected('MISDIRECTED_REQUEST'),
    422: rejected('INVALID_NAME'),
  },
  matches: () => true,
  cases: fc
    .record({
      // CONNECT has no resource; raw-bytes.test.ts sends it.
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
