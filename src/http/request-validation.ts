/**
 * Validates requests with TypeBox instead of Fastify's Ajv. Bodies are not coerced; the strings of parameters and
 * queries are converted to the numbers, booleans and lists that the schema declares.
 */
import fp from 'fastify-plugin'
import type { TSchema } from 'typebox'
import { SluiceError } from '../errors.ts'
import { createValidator } from '../validation.ts'

export const requestValidationPlugin = fp(async (app) => {
  app.setValidatorCompiler<TSchema>(({ schema, httpPart }) => createHttpValidator(schema, httpPart))
})

export function createHttpValidator(schema: TSchema, httpPart: string | undefined) {
  // Header schemas are documentation; the code that uses a header parses it.
  if (httpPart === 'headers') return (value: unknown) => ({ value })
  const validate = createValidator(schema)
  const isText = httpPart !== 'body'
  const conversions = isText ? conversionsOf(schema) : []
  return (value: unknown) => {
    for (const [name, type] of conversions) convert(value as Record<string, unknown>, name, type)
    const invalid = validate(value)
    if (!invalid) return { value }
    const errors = isText
      ? invalid.errors.map((field) => ({ ...field, pointer: field.pointer.replace('/', '?') }))
      : invalid.errors
    return { error: new SluiceError(invalid.code, { errors }) }
  }
}

/** The parameters whose strings are converted, with the type that the schema declares. */
function conversionsOf(schema: TSchema): [name: string, type: string][] {
  const { properties = {} } = schema as { properties?: Record<string, { type?: string }> }
  return Object.entries(properties)
    .map(([name, { type = '' }]): [string, string] => [name, type])
    .filter(([, type]) => /^(integer|number|boolean|array)$/.test(type))
}

/** Converts in place. A string that does not fit the type is left for the validator to reject: 1.5 is never rounded to 1. */
function convert(values: Record<string, unknown>, name: string, type: string): void {
  const text = values[name]
  if (typeof text !== 'string') return
  if (type === 'array') {
    // A parameter that is sent once.
    values[name] = [text]
  } else if (type === 'boolean') {
    if (text === 'true' || text === 'false') values[name] = text === 'true'
  } else if (/^-?\d+(\.\d+)?$/.test(text)) {
    values[name] = Number(text)
  }
}
