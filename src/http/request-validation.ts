/**
 * Fastify's validator, by TypeBox: bodies as they are, parameters and queries with their texts read as the numbers and
 * booleans that the schema asks for.
 */
import fp from 'fastify-plugin'
import type { TSchema } from 'typebox'
import { SluiceError } from '../errors.ts'
import { createValidator } from '../validation.ts'

export const requestValidationPlugin = fp(async (app) => {
  app.setValidatorCompiler<TSchema>(({ schema, httpPart }) => createHttpValidator(schema, httpPart))
})

export function createHttpValidator(schema: TSchema, httpPart: string | undefined) {
  // Documented, so that a client knows them, and read where they are used.
  if (httpPart === 'headers') return (value: unknown) => ({ value })
  const validate = createValidator(schema)
  const fromText = httpPart !== 'body'
  const notTexts = fromText ? typesOtherThanText(schema) : []
  return (value: unknown) => {
    for (const [name, type] of notTexts) readAs(type, name, value as Record<string, unknown>)
    const invalid = validate(value)
    if (!invalid) return { value }
    const errors = fromText
      ? invalid.errors.map((fault) => ({ ...fault, pointer: fault.pointer.replace('/', '?') }))
      : invalid.errors
    return { error: new SluiceError(invalid.code, { errors }) }
  }
}

function typesOtherThanText(schema: TSchema): [name: string, type: string][] {
  const { properties = {} } = schema as { properties?: Record<string, { type?: string }> }
  return Object.entries(properties)
    .map(([name, { type = '' }]): [string, string] => [name, type])
    .filter(([, type]) => /^(integer|number|boolean)$/.test(type))
}

/** In place. What cannot be read so stays a text, and is refused as one: 1.5 is not taken for 1. */
function readAs(type: string, name: string, values: Record<string, unknown>): void {
  const text = values[name]
  if (typeof text !== 'string') return
  if (type === 'boolean') {
    if (text === 'true' || text === 'false') values[name] = text === 'true'
  } else if (/^-?\d+(\.\d+)?$/.test(text)) {
    values[name] = Number(text)
  }
}
