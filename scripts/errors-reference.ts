/** docs/reference/errors.md: every error code, from the table in src/errors.ts. */
import { errorTable, Problem, problemType } from '../src/errors.ts'

interface ErrorRow {
  status: number
  title: string
  retryable: boolean
  advice: string
}

export function errorsReference(): string {
  const entries: [string, ErrorRow][] = Object.entries(errorTable)
  const statuses = [...new Set(entries.map(([, { status }]) => status))].sort((a, b) => a - b)
  const sections = statuses.map((status) => {
    const rows = entries
      .filter(([, row]) => row.status === status)
      .map(
        ([code, { title, retryable, advice }]) =>
          `| \`${code}\` | ${title}. | ${advice} | ${retryable ? 'yes' : 'no'} |`,
      )
    return `### ${status}\n\n| Code | Meaning | What to do | Retryable |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`
  })
  return [PREAMBLE, bodySection(), BEHAVIOUR, '## Codes\n', ...sections].join('\n')
}

const PREAMBLE = `# Errors

An error is an [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem with the content type
\`application/problem+json\`. \`code\` is stable and meant for programs; \`title\` and \`detail\` are for people and may change.
\`GET\` on \`type\` (\`${problemType('JOB_NOT_FOUND')}\`) returns the explanation of the code.
`

function bodySection(): string {
  const rows = Object.entries(Problem.properties).map(
    ([name, property]) => `| \`${name}\` | ${(property as { description?: string }).description ?? ''} |`,
  )
  return `## The body\n\n| Field | Meaning |\n| --- | --- |\n${rows.join('\n')}\n`
}

const BEHAVIOUR = `## When a response is not a problem

- \`GET /health\`, \`GET /health/ready\` and \`GET /health/redis\` answer 503 with their own bodies: the health report is the
  explanation.
- \`POST /jobs/batch\` answers 422 with a result for each job when none of the jobs is accepted. When nothing was stored
  because of a 5xx error, the answer is that problem instead.
- \`POST /jobs/batch\`, \`POST /leases/settle\` and \`POST /leases/extend\` answer 207 when some items fail. The problem of
  an item is its \`error\` field.
- An event stream that is already open ends without a problem. Reconnect with \`Last-Event-ID\`.
- A client that exceeds \`MAX_CONNECTIONS\` is disconnected without a response.
- A request that is not valid HTTP, or that arrives too slowly, is answered with a problem that has no \`instance\`, and
  the connection is closed.

## Retrying

\`retryable\` says whether the same request can succeed later without a change. It does not say when:

- Every problem with status 429 or 503 has a \`Retry-After\` header in seconds. For a 503 that is not retryable the value is
  60: an operator has to act first.
- \`REQUEST_TIMEOUT\` (408) is retryable and has no \`Retry-After\`. Retry at once, on a new connection.
- Items of a 207 or 422 response have \`retryable\` and no header of their own. \`POST /leases/settle\` and
  \`POST /leases/extend\` set \`Retry-After: 1\` when at least one item is retryable; \`POST /jobs/batch\` does not.

A problem of a write carries \`outcome\`:

| \`outcome\` | Meaning | What to do |
| --- | --- | --- |
| \`not_executed\` | Redis did not run the write. | Repeat the request as it is. |
| \`unknown\` | Redis may have run the write; its reply was lost. | Repeat with the same \`Idempotency-Key\`, or with the same \`opts.jobId\`. |

For a job without its own id, \`ids\` of the problem holds the id that the service chose. The part after the first colon may
be sent as \`opts.jobId\`: if the job exists, the answer is 200 with \`"deduplicated":true\`.
See [Enqueue jobs](../guides/enqueue.md#retry-safely).
`
