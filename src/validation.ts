/**
 * Validates a value against a schema and describes each invalid field by a JSON Pointer and a sentence. Bodies, queries and
 * the items of a batch share this code, so the same mistake has the same description everywhere.
 */
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Settings } from 'typebox/system'
import type { ErrorCode, InvalidField } from './errors.ts'

/** Bounds the size of the response to hostile input. */
const MAX_INVALID_FIELDS = 32
// TypeBox stops at 8 by default, and reports an invalid union once for every branch.
Settings.Set({ maxErrors: MAX_INVALID_FIELDS * 4 })

/** An object with more unknown fields is reported as a whole: listing 100,000 would block the event loop. */
const MAX_LISTED_FIELDS = 1_000

const UNKNOWN_FIELD = 'is not a known field'

export interface ValidationFailure {
  /** INVALID_NAME: only names or ids are invalid; otherwise INVALID_REQUEST. */
  code: Extract<ErrorCode, 'INVALID_NAME' | 'INVALID_REQUEST'>
  errors: InvalidField[]
}

/** Compiles the schema into a function that returns `undefined` for a valid value. */
export function createValidator<T extends TSchema>(
  schema: T,
): (value: unknown) => ValidationFailure | undefined {
  const compiled = Compile(schema)
  return (value): ValidationFailure | undefined => {
    if (compiled.Check(value)) return undefined
    const tooManyFields = findTooManyFields(value, schema, '')
    if (tooManyFields) return { code: 'INVALID_REQUEST', errors: [tooManyFields] }
    const relevant = withoutUnionNoise(compiled.Errors(value) as unknown as SchemaError[])
    const errors = relevant.flatMap((error) => describeError(error, schema)).slice(0, MAX_INVALID_FIELDS)
    const onlyNames = relevant.length > 0 && relevant.every((error) => error.keyword === 'pattern')
    return { code: onlyNames ? 'INVALID_NAME' : 'INVALID_REQUEST', errors }
  }
}

function findTooManyFields(value: unknown, schema: TSchema, pointer: string): InvalidField | undefined {
  const { properties, additionalProperties } = schema as {
    properties?: Record<string, TSchema>
    additionalProperties?: boolean
  }
  if (!properties || typeof value !== 'object' || value === null) return undefined
  const count = Object.keys(value).length
  if (additionalProperties === false && count > MAX_LISTED_FIELDS) {
    const known = Object.keys(properties)
    return {
      pointer,
      detail: `has ${count} fields, and the schema defines ${known.length}; remove the others`,
    }
  }
  for (const [name, inner] of Object.entries(properties)) {
    const found = findTooManyFields((value as Record<string, unknown>)[name], inner, `${pointer}/${name}`)
    if (found) return found
  }
  return undefined
}

interface SchemaError {
  keyword: string
  schemaPath: string
  instancePath: string
  params: { additionalProperties?: string[]; requiredProperties?: string[] }
  message: string
}

/**
 * TypeBox reports a value that matches no branch of a union once for every branch. When the value has the shape of one
 * branch, only the errors within that branch help; otherwise only the description of the union does.
 */
function withoutUnionNoise(errors: SchemaError[]): SchemaError[] {
  const unions = errors.filter((error) => error.keyword === 'anyOf')
  // With more unknown properties than maxErrors, the error of the object itself is cut off; keep those of its properties.
  if (errors.every((error) => error.keyword === 'boolean')) return errors
  return errors.filter((error) => {
    // An unknown property is reported twice: by itself, and in the error of its object.
    if (error.keyword === 'boolean') return false
    return unions.every((union) => {
      const branch = `${union.schemaPath}/anyOf/`
      const inBranches = errors.filter((other) => other.schemaPath.startsWith(branch))
      if (error === union) return !inBranches.some((other) => hasBranchShape(other, union))
      if (!error.schemaPath.startsWith(branch)) return true
      return hasBranchShape(error, union)
    })
  })
}

/** The value has the type that the branch of the error expects; something within it is invalid. */
function hasBranchShape(error: SchemaError, union: SchemaError): boolean {
  return (
    error.instancePath.length > union.instancePath.length ||
    ['additionalProperties', 'required', 'minimum', 'maximum'].includes(error.keyword)
  )
}

function describeError(error: SchemaError, schema: TSchema): InvalidField[] {
  const { keyword, instancePath, params, message } = error
  if (keyword === 'additionalProperties') {
    return (params.additionalProperties ?? []).map((name) => ({
      pointer: `${instancePath}/${escapePointer(name)}`,
      detail: UNKNOWN_FIELD,
    }))
  }
  if (keyword === 'required') {
    return (params.requiredProperties ?? []).map((name) => ({
      pointer: `${instancePath}/${escapePointer(name)}`,
      detail: 'is missing',
    }))
  }
  if (keyword === 'boolean') return [{ pointer: instancePath, detail: UNKNOWN_FIELD }]
  const rule = ruleAt(schema, error.schemaPath)
  const allowed = rule?.enum ? `must be one of ${rule.enum.join(', ')}` : undefined
  const described = keyword === 'pattern' || keyword === 'anyOf' ? rule?.description : undefined
  return [
    { pointer: instancePath, detail: described ? `is not allowed: ${described}` : (allowed ?? message) },
  ]
}

function ruleAt(schema: TSchema, path: string): { description?: string; enum?: unknown[] } | undefined {
  let at: unknown = schema
  for (const step of path.split('/').slice(1)) {
    at = (at as Record<string, unknown> | undefined)?.[step]
  }
  return at as { description?: string; enum?: unknown[] } | undefined
}

function escapePointer(name: string): string {
  return name.replaceAll('~', '~0').replaceAll('/', '~1')
}
