/**
 * From a JSON schema of the OpenAPI document to texts of JSON that fit it, and to texts that nearly do: one thing in
 * them is of another type, missing, unknown, twice there, or at or beyond its bounds. Knows the keywords that the document
 * uses and throws at any other, so that no schema is passed over.
 */
import * as fc from 'fast-check'
import { anyJson, anyText, numberText, type Text } from './hostile.ts'

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

/** JSON texts for properties of one name, instead of what their schema says. */
export interface Instead {
  fitting: Text
  nearly: Text
}

export interface FromSchema {
  /** JSON texts that fit. */
  fitting(schema: Schema): Text
  /** JSON texts with one thing in them that is at a bound, beyond it, or wrong. */
  nearly(schema: Schema): Text
}

const KNOWN = [
  ...['$ref', 'type', 'enum', 'anyOf', 'properties', 'required', 'additionalProperties', 'maxProperties'],
  ...['items', 'minItems', 'maxItems', 'format', 'pattern', 'minLength', 'maxLength', 'minimum', 'maximum'],
  // They say nothing of what fits.
  ...['title', 'description', 'example', 'examples'],
]

/** A few for every length: longer lists are for the tests of batches, and for bounds. */
const ITEMS_MAX = 6

/**
 * `samples`: values for properties of that name, which make requests meet: queues and ids that others use as well. Of an
 * object that may have any names these are its names; its values are known as `name{}`.
 */
export function createFromSchema(
  components: Record<string, Schema>,
  samples: Record<string, string[]>,
  instead: Record<string, Instead> = {},
): FromSchema {
  function look(schema: Schema): Schema {
    const unknown = Object.keys(schema).filter((key) => !KNOWN.includes(key))
    if (unknown.length > 0) throw new Error(`from-schema.ts does not know the keyword ${unknown.join(', ')}`)
    const { format = 'date-time' } = schema
    if (format !== 'date-time') throw new Error(`from-schema.ts does not know the format ${format}`)
    if (schema.$ref === undefined) return schema
    const target = components[schema.$ref.replace('#/components/schemas/', '')]
    if (!target) throw new Error(`${schema.$ref} leads nowhere`)
    return look(target)
  }

  function fitting(given: Schema, name = ''): Text {
    const schema = look(given)
    if (instead[name]) return instead[name].fitting
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
    const schema = look(given)
    if (instead[name]) return instead[name].nearly
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
        return spoiltList(schema)
      case 'object':
        return spoiltObject(schema, name)
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

  function spoiltList(schema: Schema): Text {
    const { items = {}, minItems = 0, maxItems } = schema
    const withOne = fc
      .tuple(lists(schema), nearly(items), fc.nat())
      .map(([all, one, at]) => list(all.toSpliced(at % (all.length + 1), 1, one)))
    const tooFew = minItems > 0 ? [fc.constant(list([]))] : []
    const many = fc
      .tuple(fitting(items), around(maxItems ?? 0))
      .map(([item, length]) => list(Array(length).fill(item)))
    return fc.oneof(
      { weight: 6, arbitrary: withOne },
      ...tooFew,
      ...(maxItems === undefined ? [] : [many]),
      anyJson,
    )
  }

  function pairs(schema: Schema, name: string): fc.Arbitrary<Pair[]> {
    const { properties = {}, required = [] } = schema
    const each = Object.entries(properties).map(([key, property]) => {
      const pair = fitting(property, key).map((text): Pair[] => [[key, text]])
      if (required.includes(key)) return pair
      // Mostly left out: with all of them at once, one would hide what another does.
      return fc.oneof({ weight: 2, arbitrary: fc.constant<Pair[]>([]) }, { weight: 1, arbitrary: pair })
    })
    return fc.tuple(...each, freePairs(schema, name)).map((some) => some.flat())
  }

  /** Of an object that may have names of any kind. */
  function freePairs({ additionalProperties, maxProperties }: Schema, name: string): fc.Arbitrary<Pair[]> {
    if (typeof additionalProperties !== 'object') return fc.constant([])
    const pair = fc.tuple(namesIn(name), fitting(additionalProperties, `${name}{}`))
    return fc.array(pair, { maxLength: Math.min(ITEMS_MAX, maxProperties ?? ITEMS_MAX) })
  }

  const namesIn = (name: string): Text => (samples[name] ? fc.constantFrom(...samples[name]) : anyText)

  type Spoil = (pairs: Pair[]) => Pair[]

  function spoiltObject(schema: Schema, name: string): Text {
    const { properties = {}, required = [] } = schema
    const without = (all: Pair[], key: string) => all.filter(([other]) => other !== key)
    const replaced = Object.entries(properties).map(([key, property]) =>
      nearly(property, key).map(
        (text): Spoil =>
          (all) => [...without(all, key), [key, text]],
      ),
    )
    const missing = required.map((key) => fc.constant<Spoil>((all) => without(all, key)))
    const added = fc.tuple(anyText, anyJson).map(
      (pair): Spoil =>
        (all) => [pair, ...all],
    )
    const twice = fc.constant<Spoil>((all) => [...all, ...all])
    const change = fc.oneof(...replaced, ...spoiltFree(schema, name))
    const spoil = fc.oneof({ weight: 8, arbitrary: change }, ...missing, added, twice)
    const spoilt = fc.tuple(pairs(schema, name), spoil).map(([all, change]) => object(change(all)))
    return fc.oneof({ weight: 12, arbitrary: spoilt }, anyJson)
  }

  function spoiltFree({ additionalProperties, maxProperties }: Schema, name: string): fc.Arbitrary<Spoil>[] {
    if (typeof additionalProperties !== 'object') return []
    const wrong = fc.tuple(namesIn(name), nearly(additionalProperties, `${name}{}`)).map(
      (pair): Spoil =>
        (all) => [...all, pair],
    )
    if (maxProperties === undefined) return [wrong]
    const many = fc.tuple(fitting(additionalProperties, `${name}{}`), around(maxProperties)).map(
      ([text, length]): Spoil =>
        () =>
          Array.from({ length }, (_, index) => [`x-${index}`, text]),
    )
    return [wrong, many]
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

/** At a bound and beyond it. */
const around = (maximum: number) => fc.constantFrom(maximum, maximum + 1)

function strings(schema: Schema, samples: string[]): Text {
  if (schema.format !== undefined) return times
  const free = schema.pattern === undefined ? anyText : matching(schema.pattern)
  const { minLength = 0, maxLength = Number.POSITIVE_INFINITY } = schema
  // By code points, as JSON Schema counts.
  const fits = free.filter((text) => [...text].length >= minLength && [...text].length <= maxLength)
  return samples.length === 0 ? fits : fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...samples) }, fits)
}

/** RFC 3339. */
const times: Text = fc
  .date({ noInvalidDate: true, min: new Date(0), max: new Date('9999-12-31') })
  .map((date) => date.toISOString())

/** fast-check makes no text from a pattern that looks ahead: those are left out, and then decide. */
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
