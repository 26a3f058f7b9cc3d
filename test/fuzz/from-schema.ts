/**
 * Generates JSON texts from the JSON schemas of the OpenAPI document: valid ones, and near misses in which one thing has
 * another type, is missing, unknown, repeated, or at or beyond a bound. Supports the keywords that the document uses and
 * throws for any other, so that no schema is skipped.
 */
import * as fc from 'fast-check'
import { anyJson, anyText, numberText, type Text } from './hostile-values.ts'

export interface Schema {
  $ref?: string
  type?: string | string[]
  enum?: unknown[]
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  required?: string[]
  additionalProperties?: boolean | Schema
  maxProperties?: number
  items?: Schema
  minItems?: number
  maxItems?: number
  format?: string
  pattern?: string
  minLength?: number
  maxLength?: number
  minimum?: number
  maximum?: number
}

/** JSON texts that replace the schema of every property with one name. */
export interface Override {
  fitting: Text
  nearly: Text
}

export interface FromSchema {
  /** Valid JSON texts. */
  fitting(schema: Schema): Text
  /** JSON texts with one thing at a bound, beyond it, or wrong. */
  nearly(schema: Schema): Text
}

const KNOWN = [
  ...['$ref', 'type', 'enum', 'anyOf', 'properties', 'required', 'additionalProperties', 'maxProperties'],
  ...['items', 'minItems', 'maxItems', 'format', 'pattern', 'minLength', 'maxLength', 'minimum', 'maximum'],
  // Annotations, which do not constrain values.
  ...['title', 'description', 'example', 'examples'],
]

/** Lists stay short here; batch tests and `around` cover long ones. */
const ITEMS_MAX = 6

/**
 * `samples`: values for properties of that name, so that requests share queues and ids. For an object with free keys they
 * are the keys, and its values have the name `name{}`.
 */
export function createFromSchema(
  components: Record<string, Schema>,
  samples: Record<string, string[]>,
  overrides: Record<string, Override> = {},
): FromSchema {
  function resolve(schema: Schema): Schema {
    const unknown = Object.keys(schema).filter((key) => !KNOWN.includes(key))
    if (unknown.length > 0) throw new Error(`from-schema.ts does not know the keyword ${unknown.join(', ')}`)
    const { format = 'date-time' } = schema
    if (format !== 'date-time') throw new Error(`from-schema.ts does not know the format ${format}`)
    if (schema.$ref === undefined) return schema
    const target = components[schema.$ref.replace('#/components/schemas/', '')]
    if (!target) throw new Error(`${schema.$ref} does not exist`)
    return resolve(target)
  }

  function fitting(given: Schema, name = ''): Text {
    const schema = resolve(given)
    if (overrides[name]) return overrides[name].fitting
    if (schema.enum) return fc.constantFrom(...schema.enum.map((value) => JSON.stringify(value)))
    if (schema.anyOf) return fc.oneof(...schema.anyOf.map((branch) => fitting(branch)))
    if (Array.isArray(schema.type)) return oneOfTypes(schema, schema.type, fitting)
    switch (schema.type) {
      case undefined:
        return anyJson
      case 'null':
        return fc.constant('null')
      case 'boolean':
        return fc.constantFrom('true', 'false')
      case 'integer':
      case 'number':
        return numbers(schema).map(String)
      case 'string':
        return strings(schema, samples[name] ?? []).map((text) => JSON.stringify(text))
      case 'array':
        return lists(schema).map(list)
      case 'object':
        return pairs(schema, name).map(object)
      default:
        throw new Error(`from-schema.ts does not know the type ${schema.type}`)
    }
  }

  function nearly(given: Schema, name = ''): Text {
    const schema = resolve(given)
    if (overrides[name]) return overrides[name].nearly
    if (schema.enum) return otherEnums(schema.enum)
    if (schema.anyOf) return fc.oneof(...schema.anyOf.map((branch) => nearly(branch)), anyJson)
    if (Array.isArray(schema.type)) return oneOfTypes(schema, schema.type, nearly)
    switch (schema.type) {
      case 'integer':
      case 'number':
        return fc.oneof(bounds(schema), numberText, anyJson)
      case 'string':
        return fc.oneof(
          lengths(schema),
          anyText.map((text) => JSON.stringify(text)),
          anyJson,
        )
      case 'array':
        return brokenList(schema)
      case 'object':
        return brokenObject(schema, name)
      default:
        return fitting(schema, name)
    }
  }

  function oneOfTypes(schema: Schema, types: string[], make: (schema: Schema) => Text): Text {
    return fc.oneof(...types.map((type) => make({ ...schema, type })))
  }

  function lists({ items = {}, minItems = 0, maxItems = ITEMS_MAX }: Schema): fc.Arbitrary<string[]> {
    const maxLength = Math.max(Math.min(ITEMS_MAX, maxItems), minItems)
    return fc.array(fitting(items), { minLength: minItems, maxLength })
  }

  function brokenList(schema: Schema): Text {
    const { items = {}, minItems = 0, maxItems } = schema
    const withOne = fc
      .tuple(lists(schema), nearly(items), fc.nat())
      .map(([all, one, at]) => list(all.toSpliced(at % (all.length + 1), 1, one)))
    const tooFew = minItems > 0 ? [fc.constant(list([]))] : []
    const tooMany = fc
      .tuple(fitting(items), around(maxItems ?? 0))
      .map(([item, length]) => list(Array(length).fill(item)))
    return fc.oneof(
      { weight: 6, arbitrary: withOne },
      ...tooFew,
      ...(maxItems === undefined ? [] : [tooMany]),
      anyJson,
    )
  }

  function pairs(schema: Schema, name: string): fc.Arbitrary<Pair[]> {
    const { properties = {}, required = [] } = schema
    const each = Object.entries(properties).map(([key, property]) => {
      const pair = fitting(property, key).map((text): Pair[] => [[key, text]])
      if (required.includes(key)) return pair
      // Mostly omitted: with all properties at once, one would mask another.
      return fc.oneof({ weight: 2, arbitrary: fc.constant<Pair[]>([]) }, { weight: 1, arbitrary: pair })
    })
    return fc.tuple(...each, freePairs(schema, name)).map((some) => some.flat())
  }

  /** Pairs of an object with free keys. */
  function freePairs({ additionalProperties, maxProperties }: Schema, name: string): fc.Arbitrary<Pair[]> {
    if (typeof additionalProperties !== 'object') return fc.constant([])
    const pair = fc.tuple(namesIn(name), fitting(additionalProperties, `${name}{}`))
    return fc.array(pair, { maxLength: Math.min(ITEMS_MAX, maxProperties ?? ITEMS_MAX) })
  }

  const namesIn = (name: string): Text => (samples[name] ? fc.constantFrom(...samples[name]) : anyText)

  type Break = (pairs: Pair[]) => Pair[]

  function brokenObject(schema: Schema, name: string): Text {
    const { properties = {}, required = [] } = schema
    const without = (all: Pair[], key: string) => all.filter(([other]) => other !== key)
    const replaced = Object.entries(properties).map(([key, property]) =>
      nearly(property, key).map(
        (text): Break =>
          (all) => [...without(all, key), [key, text]],
      ),
    )
    const missing = required.map((key) => fc.constant<Break>((all) => without(all, key)))
    const added = fc.tuple(anyText, anyJson).map(
      (pair): Break =>
        (all) => [pair, ...all],
    )
    const twice = fc.constant<Break>((all) => [...all, ...all])
    const change = fc.oneof(...replaced, ...brokenFree(schema, name))
    const breakage = fc.oneof({ weight: 8, arbitrary: change }, ...missing, added, twice)
    const broken = fc.tuple(pairs(schema, name), breakage).map(([all, change]) => object(change(all)))
    return fc.oneof({ weight: 12, arbitrary: broken }, anyJson)
  }

  function brokenFree({ additionalProperties, maxProperties }: Schema, name: string): fc.Arbitrary<Break>[] {
    if (typeof additionalProperties !== 'object') return []
    const wrong = fc.tuple(namesIn(name), nearly(additionalProperties, `${name}{}`)).map(
      (pair): Break =>
        (all) => [...all, pair],
    )
    if (maxProperties === undefined) return [wrong]
    const tooMany = fc.tuple(fitting(additionalProperties, `${name}{}`), around(maxProperties)).map(
      ([text, length]): Break =>
        () =>
          Array.from({ length }, (_, index) => [`x-${index}`, text]),
    )
    return [wrong, tooMany]
  }

  return { fitting: (schema) => fitting(schema), nearly: (schema) => nearly(schema) }
}

type Pair = [name: string, json: string]

const object = (pairs: Pair[]) => `{${pairs.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join()}}`
const list = (items: string[]) => `[${items.join()}]`

function numbers({ type, minimum: min, maximum: max }: Schema): fc.Arbitrary<number> {
  const range = { ...(min === undefined ? {} : { min }), ...(max === undefined ? {} : { max }) }
  if (type === 'number') return fc.double({ ...range, noNaN: true, noDefaultInfinity: true })
  return fc.integer(range)
}

/** The bound, and one beyond it. */
const around = (maximum: number) => fc.constantFrom(maximum, maximum + 1)

function strings(schema: Schema, samples: string[]): Text {
  if (schema.format !== undefined) return times
  const free = schema.pattern === undefined ? anyText : matching(schema.pattern)
  const { minLength = 0, maxLength = Number.POSITIVE_INFINITY } = schema
  // JSON Schema counts code points.
  const fits = free.filter((text) => [...text].length >= minLength && [...text].length <= maxLength)
  return samples.length === 0 ? fits : fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...samples) }, fits)
}

/** RFC 3339. */
const times: Text = fc
  .date({ noInvalidDate: true, min: new Date(0), max: new Date('9999-12-31') })
  .map((date) => date.toISOString())

/** fast-check cannot generate from lookaheads: they are removed for generating, and then used as a filter. */
function matching(pattern: string): Text {
  const plain = pattern.replaceAll(/\(\?!(?:\(\?:[^()]*\)|[^()])*\)/g, '')
  const whole = new RegExp(pattern)
  return fc.stringMatching(new RegExp(plain)).filter((text) => whole.test(text))
}

function bounds({ minimum = 0, maximum = 1 }: Schema): Text {
  return fc.constantFrom(
    ...[minimum - 1, minimum, minimum + 0.5, maximum - 1, maximum, maximum + 1].map(String),
  )
}

function lengths({ minLength = 0, maxLength = 128 }: Schema): Text {
  const all = [Math.max(0, minLength - 1), minLength, maxLength, maxLength + 1]
  return fc
    .tuple(fc.constantFrom(...all), fc.constantFrom('x', '1', 'é', '😀', '\0', '.'))
    .map(([length, unit]) => JSON.stringify(unit.repeat(length)))
}

function otherEnums(values: unknown[]): Text {
  const near = values.flatMap((value) => [`${value} `, `${value}`.toUpperCase(), [value]])
  return fc.oneof(fc.constantFrom(...near.map((value) => JSON.stringify(value))), anyJson)
}
