/**
 * What every answer owes, whatever was asked: a status that the document lists for the operation, a body that fits what it
 * says of that status and has nothing more in it, a problem with a code that is told there, the request's id, and no
 * long wait. Says what is wrong, and nothing when nothing is.
 */
import { Compile } from 'typebox/schema'
import { type ErrorCode, errorTable } from '../../src/errors.ts'
import type { Answer } from './clients.ts'
import type { Schema } from './from-schema.ts'
import { nothing } from './nothing.ts'
import { type Case, type Document, mayWait, type Operation } from './operations.ts'

export type Contract = (operation: Operation, asked: Case, answer: Answer) => string[]

/** Longest that anything may take, and how much of it a `wait` explains. */
const MAX_MS = 2_000
const MAX_WAIT_MS = 1_000

/** A little less than the service takes: the names of some headers are added on the way. */
const MAX_HEAD_BYTES = 15_000

const SANE_ID = /^[A-Za-z0-9._:-]{1,128}$/
/** Paths, lines of code, what Redis says of a script: nothing of that is for clients. */
export const INSIDES = /node_modules|\.[cm]?[jt]s:\d|user_script|EVALSHA|\bat \S+ \(/

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

  /** With its references filled in, and objects that take no field that they do not name. */
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

  return (meant, asked, answer) => {
    const { status, headers, body } = answer
    const operation = meant.answersTo(asked.url) ? meant : nothing
    // Node's parser refuses it before anybody could give it an id, or look for its operation.
    if (status === 431 && headBytes(asked) > MAX_HEAD_BYTES) return []
    const response = operation.responses[status]
    return [
      ...(response ? [] : [`the document does not list ${status}`]),
      ...(response && asked.method !== 'HEAD' ? bodyFaults(response.content, answer) : []),
      ...(status >= 400 && isProblem(answer) ? problemFaults(answer, response?.description ?? '') : []),
      // 503 says that Redis is away or too busy, or that a queue is damaged, and nothing of that is so.
      ...(status >= 500 && status !== 501 ? [`it is ${status}`] : []),
      ...idFaults(asked, headers['x-request-id']),
      ...(answer.ms > MAX_MS + (mayWait(asked) ? MAX_WAIT_MS : 0)
        ? [`it took ${Math.round(answer.ms)} ms`]
        : []),
      ...(status >= 400 && INSIDES.test(body) ? ['it tells what is inside'] : []),
      ...('x-injected' in headers ? ['a header was injected'] : []),
    ]
  }

  function bodyFaults(content: Record<string, { schema: Schema }> | undefined, answer: Answer): string[] {
    const type = mediaType(answer)
    // Of a library's pages nothing is said.
    if (!content)
      return [204, 304].includes(answer.status) && answer.body !== '' ? ['a body where there is none'] : []
    const documented = content[type]
    if (!documented) return [`the document does not list "${type}" for ${answer.status}`]
    if (!type.endsWith('json'))
      return answer.body.startsWith('retry: ') ? [] : ['the stream has no beginning']
    const value = parse(answer.body)
    if (value === undefined) return [answer.body === '' ? 'there is no body' : 'the body is not JSON']
    const fault = validatorOf(documented.schema)(value)
    return fault === undefined ? [] : [`the body does not fit: ${fault}`]
  }
}

function problemFaults({ status, headers, body }: Answer, description: string): string[] {
  const problem = parse(body) as { code: ErrorCode; status: number; instance?: string } | undefined
  if (!problem) return []
  const { code, instance } = problem
  return [
    ...(Object.hasOwn(errorTable, code) ? [] : [`the code ${code} is not known`]),
    ...(errorTable[code]?.status === status && problem.status === status ? [] : [`${code} is not ${status}`]),
    ...(description.includes(`\`${code}\``) ? [] : [`the document does not list ${code} for ${status}`]),
    ...(instance === `urn:request:${headers['x-request-id']}` ? [] : [`the instance is ${instance}`]),
    ...(status === 503 && headers['retry-after'] === undefined ? ['there is no Retry-After'] : []),
  ]
}

function idFaults({ headers }: Case, echoed: unknown): string[] {
  const given = headers['x-request-id']
  if (given !== undefined && SANE_ID.test(given)) {
    return echoed === given ? [] : [`X-Request-Id is not the one that was given: ${echoed}`]
  }
  return SANE_ID.test(String(echoed)) && echoed !== undefined ? [] : [`X-Request-Id is ${echoed}`]
}

function headBytes({ url, headers }: Case): number {
  return Object.entries(headers).reduce((sum, [name, value]) => sum + name.length + value.length, url.length)
}

function isProblem(answer: Answer): boolean {
  return mediaType(answer) === 'application/problem+json' && answer.body !== ''
}

function mediaType({ headers }: Answer): string {
  return String(headers['content-type'] ?? '').split(';', 1)[0]!
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
