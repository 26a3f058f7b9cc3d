/**
 * Checks a response against the OpenAPI document: a listed status, a body that matches the schema of that status without
 * extra fields, a listed problem code, the request id and the response time. Returns the violations.
 */
import { Compile } from 'typebox/schema'
import { type ErrorCode, errorTable } from '../../src/errors.ts'
import type { HttpResponse } from './clients.ts'
import type { Schema } from './from-schema.ts'
import { type Case, type Document, mayWait, type Operation } from './operations.ts'
import { unknownRoute } from './unknown-routes.ts'

export type Contract = (operation: Operation, testCase: Case, response: HttpResponse) => string[]

/** The longest allowed response time, and how much a `wait` adds to it. */
const MAX_MS = 2_000
const MAX_WAIT_MS = 1_000

/** Slightly below the limit of the service, because the client adds some headers. */
const MAX_HEAD_BYTES = 15_000

const SAFE_ID = /^[A-Za-z0-9._:-]{1,128}$/
/** File paths, stack frames and Redis script errors, which must not reach clients. */
export const INTERNALS = /node_modules|\.[cm]?[jt]s:\d|user_script|EVALSHA|\bat \S+ \(/

export function createContract(document: Document): Contract {
  const validators = new Map<Schema, (value: unknown) => string | undefined>()

  function validatorOf(schema: Schema) {
    let validator = validators.get(schema)
    if (!validator) {
      const compiled = Compile(closed(schema) as object)
      validator = (value) =>
        compiled.Check(value) ? undefined : JSON.stringify(compiled.Errors(value)).slice(0, 500)
      validators.set(schema, validator)
    }
    return validator
  }

  /** Resolves references, and forbids fields that an object schema does not name. */
  function closed(node: unknown): unknown {
    if (Array.isArray(node)) return node.map(closed)
    if (node === null || typeof node !== 'object') return node
    const { $ref } = node as Schema
    if ($ref !== undefined)
      return closed(document.components.schemas[$ref.replace('#/components/schemas/', '')])
    const copy: Schema = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, closed(value)]))
    if (copy.properties && copy.additionalProperties === undefined) copy.additionalProperties = false
    return copy
  }

  return (intended, testCase, response) => {
    const { status, headers, body } = response
    const operation = intended.matches(testCase.url) ? intended : unknownRoute
    // Node's parser rejects it before the request gets an id or a route.
    if (status === 431 && headBytes(testCase) > MAX_HEAD_BYTES) return []
    const documented = operation.responses[status]
    return [
      ...(documented ? [] : [`the document does not list ${status}`]),
      ...(documented && testCase.method !== 'HEAD' ? bodyFaults(documented.content, response) : []),
      ...(status >= 400 && isProblem(response) ? problemFaults(response, documented?.description ?? '') : []),
      // Redis is up and idle, and no queue is damaged, so a 503 is a failure too.
      ...(status >= 500 && status !== 501 ? [`it is ${status}`] : []),
      ...idFaults(testCase, headers['x-request-id']),
      ...(response.ms > MAX_MS + (mayWait(testCase) ? MAX_WAIT_MS : 0)
        ? [`it took ${Math.round(response.ms)} ms`]
        : []),
      ...(status >= 400 && INTERNALS.test(body) ? ['it reveals internals'] : []),
      ...('x-injected' in headers ? ['a header was injected'] : []),
    ]
  }

  function bodyFaults(
    content: Record<string, { schema: Schema }> | undefined,
    response: HttpResponse,
  ): string[] {
    const type = mediaType(response)
    // The document does not describe the pages of libraries.
    if (!content)
      return [204, 304].includes(response.status) && response.body !== ''
        ? ['it has a body, but must not']
        : []
    const documented = content[type]
    if (!documented) return [`the document does not list "${type}" for ${response.status}`]
    if (!type.endsWith('json'))
      return response.body.startsWith('retry: ') ? [] : ['the stream does not start with retry']
    const value = parse(response.body)
    if (value === undefined) return [response.body === '' ? 'the body is missing' : 'the body is not JSON']
    const fault = validatorOf(documented.schema)(value)
    return fault === undefined ? [] : [`the body does not match the schema: ${fault}`]
  }
}

function problemFaults({ status, headers, body }: HttpResponse, description: string): string[] {
  const problem = parse(body) as { code: ErrorCode; status: number; instance?: string } | undefined
  if (!problem) return []
  const { code, instance } = problem
  return [
    ...(Object.hasOwn(errorTable, code) ? [] : [`the code ${code} is unknown`]),
    ...(errorTable[code]?.status === status && problem.status === status
      ? []
      : [`${code} has the status ${status}`]),
    ...(description.includes(`\`${code}\``) ? [] : [`the document does not list ${code} for ${status}`]),
    ...(instance === `urn:request:${headers['x-request-id']}` ? [] : [`the instance is ${instance}`]),
    ...(status === 503 && headers['retry-after'] === undefined ? ['Retry-After is missing'] : []),
  ]
}

function idFaults({ headers }: Case, echoed: unknown): string[] {
  const given = headers['x-request-id']
  if (given !== undefined && SAFE_ID.test(given)) {
    return echoed === given ? [] : [`X-Request-Id was not returned: ${echoed}`]
  }
  return SAFE_ID.test(String(echoed)) && echoed !== undefined ? [] : [`X-Request-Id is ${echoed}`]
}

function headBytes({ url, headers }: Case): number {
  return Object.entries(headers).reduce((sum, [name, value]) => sum + name.length + value.length, url.length)
}

function isProblem(response: HttpResponse): boolean {
  return mediaType(response) === 'application/problem+json' && response.body !== ''
}

function mediaType({ headers }: HttpResponse): string {
  return String(headers['content-type'] ?? '').split(';', 1)[0]!
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
