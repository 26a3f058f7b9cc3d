/**
 * Whether a value fits a schema, and if not, each fault with a JSON Pointer and a sentence. One validator for bodies,
 * queries and the items of a batch, so that the same mistake is told in the same words everywhere.
 */
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import { Settings } from 'typebox/system'
import type { ErrorCode, InvalidField } from './errors.ts'

/** More faults than anyone reads, and few enough that hostile input cannot make a large answer. */
const MAX_FAULTS = 32
// TypeBox stops at 8 by itself, and lists a fault of a union once for every branch.
Settings.Set({ maxErrors: MAX_FAULTS * 4 })

const UNKNOWN_FIELD = 'is not a field that is known here'

export interface ValidationFailure {
  /** INVALID_NAME: it fits but for a name or id that may not be used; else INVALID_REQUEST. */
  code: Extract<ErrorCode, 'INVALID_NAME' | 'INVALID_REQUEST'>
  errors: InvalidField[]
}

/** Returns a function that gives `undefined` for a value that fits. */
export function createValidator<T extends TSchema>(
  schema: T,
): (value: unknown) => ValidationFailure | undefined {
  const compiled = Compile(schema)
  return (value): ValidationFailure | undefined => {
    if (compiled.Check(value)) return undefined
    const crowd = crowdIn(value, schema, '')
    if (crowd) return { code: 'INVALID_REQUEST', errors: [crowd] }
    const errors = compiled.Errors(value) as unknown as SchemaError[]
    const relevant = withoutUnionNoise(errors)
    const faults = relevant.flatMap((error) => faultsOf(error, schema)).slice(0, MAX_FAULTS)
    const onlyNames = relevant.length > 0 && relevant.every((error) => error.keyword === 'pattern')
    return { code: onlyNames ? 'INVALID_NAME' : 'INVALID_REQUEST', errors: faults }
  }
}

/** More unknown fields than are told one by one; to list a hundred thousand would take longer than anything that is accepted. */
const CROWD = 1_000

function crowdIn(value: unknown, schema: TSchema, pointer: string): InvalidField | undefined {
  const { properties, additionalProperties } = schema as {
    properties?: Record<string, TSchema>
    additionalProperties?: boolean
  }
  if (!properties || typeof value !== 'object' || value === null) return undefined
  const count = Object.keys(value).length
  if (additionalProperties === false && count > CROWD)
    return { pointer, detail: `has ${count} fields, and ${Object.keys(properties).length} are known here` }
  for (const [name, inner] of Object.entries(properties)) {
    const crowd = crowdIn((value as Record<string, unknown>)[name], inner, `${pointer}/${name}`)
    if (crowd) return crowd
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
 * A value that fits no branch of a union is told about every branch. Where one branch has the right shape and a fault
 * deeper down, only that fault helps; where none has, only the union's own description does.
 */
function withoutUnionNoise(errors: SchemaError[]): SchemaError[] {
  const unions = errors.filter((error) => error.keyword === 'anyOf')
  // More unknown properties than errors are listed: then the objects' own entries were cut off.
  if (errors.every((error) => error.keyword === 'boolean')) return errors
  return errors.filter((error) => {
    // Each unknown property is told twice, the second time with its object's others, which is enough.
    if (error.keyword === 'boolean') return false
    return unions.every((union) => {
      const branch = `${union.schemaPath}/anyOf/`
      const inside = errors.filter((other) => other.schemaPath.startsWith(branch))
      const deeper = inside.filter((other) => isFaultInside(other, union))
      if (error === union) return deeper.length === 0
      if (!error.schemaPath.startsWith(branch)) return true
      return isFaultInside(error, union)
    })
  })
}

/** The branch fits the kind of value (it is no `type` fault of the value itself), and something in it does not. */
function isFaultInside(error: SchemaError, union: SchemaError): boolean {
  return (
    error.instancePath.length > union.instancePath.length ||
    ['additionalProperties', 'required', 'minimum', 'maximum'].includes(error.keyword)
  )
}

function faultsOf(error: SchemaError, schema: TSchema): InvalidField[] {
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
