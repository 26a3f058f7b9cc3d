/**
 * Fastify's validator, by TypeBox: bodies as they are, parameters and queries with their texts read as the numbers and
 * booleans that the schema asks for.
 */
import fp from 'fastify-plugin'
import type { TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { SluiceError } from '../errors.ts'
import { createValidator } from '../validation.ts'

export const validationPlugin = fp(async (app) => {
  app.setValidatorCompiler<TSchema>(({ schema, httpPart }) => createHttpValidator(schema, httpPart))
})

export function createHttpValidator(schema: TSchema, httpPart: string | undefined) {
  // Documented, so that a client knows them, and read where they are used.
  if (httpPart === 'headers') return (value: unknown) => ({ value })
  const validate = createValidator(schema)
  const fromText = httpPart !== 'body'
  const notTexts = fromText ? namesOfOtherThanTexts(schema) : []
  return (value: unknown) => {
    // To look whether anything is to be read as another type costs more than the rest; most requests have none.
    const toConvert = notTexts.some((name) => (value as Record<string, unknown>)[name] !== undefined)
    const converted = toConvert ? Value.Convert(schema, value) : value
    const invalid = validate(converted)
    if (!invalid) return { value: converted }
    const errors = fromText
      ? invalid.faults.map((fault) => ({ ...fault, pointer: fault.pointer.replace('/', '?') }))
      : invalid.faults
    return { error: new SluiceError(invalid.code, { errors }) }
  }
}

function namesOfOtherThanTexts(schema: TSchema): string[] {
  const { properties = {} } = schema as { properties?: Record<string, { type?: string }> }
  return Object.keys(properties).filter((name) =>
    /^(integer|number|boolean)$/.test(properties[name]!.type ?? ''),
  )
}
