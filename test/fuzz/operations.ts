/**
 * Generates requests for every operation of the OpenAPI document: valid ones, near misses, and arbitrary ones.
 * special-values.ts has what a schema cannot express.
 */
import * as fc from 'fast-check'
import { testConfig } from '../helpers/app.ts'
import { createFromSchema, type FromSchema, type Schema } from './from-schema.ts'
import {
  anyJson,
  anyText,
  asHeader,
  brokenJson,
  encode,
  headerText,
  rawSegments,
  type Text,
} from './hostile-values.ts'
import { isHarmless, overrides, parameterOverrides, samples } from './special-values.ts'

export interface Case {
  method: string
  /** As in the request line. */
  url: string
  headers: Record<string, string>
  payload?: string
}

interface Parameter {
  operationId: string
  in: string
  name: string
  required?: boolean
  schema: Schema
}

export interface Response {
  description: string
  content?: Record<string, { schema: Schema }>
}

interface Described {
  operationId: string
  parameters?: Omit<Parameter, 'operationId'>[]
  requestBody?: { content: Record<string, { schema: Schema }> }
  responses: Record<string, Response>
}

export interface Document {
  paths: Record<string, Record<string, Described>>
  components: { schemas: Record<string, Schema> }
}

export interface Operation {
  /** The operationId. */
  id: string
  /** The documented responses, by status. */
  responses: Record<string, Response>
  /** Whether the URL leads to this operation; a hostile segment may prevent that. */
  matches(url: string): boolean
  cases: fc.Arbitrary<Case>
}

export function readOperations({ paths, components }: Document): Operation[] {
  const fromSchema = createFromSchema(components.schemas, samples, overrides)
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]): Operation => {
      const { operationId: id, responses } = described
      const cases = casesOf(method.toUpperCase(), path, described, fromSchema)
      return { id, responses, matches: matcher(path), cases }
    }),
  )
}

/** The longest segment that the router accepts (src/http/http-server.ts). */
const MAX_SEGMENT = 16_384

function matcher(path: string): (url: string) => boolean {
  const pattern = new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '([^/]+)')}$`)
  return (url) => {
    try {
      const segments = pattern.exec(new URL(url, 'http://x').pathname)?.slice(1)
      return segments?.every((segment) => decodeURIComponent(segment).length <= MAX_SEGMENT) ?? false
    } catch {
      return false
    }
  }
}

function casesOf(method: string, path: string, described: Described, from: FromSchema): fc.Arbitrary<Case> {
  const { operationId, requestBody } = described
  const parameters = (described.parameters ?? []).map((one) => ({ ...one, operationId }))
  const within = (place: string) => parameters.filter((parameter) => parameter.in === place)
  const body = requestBody?.content['application/json']?.schema
  if (requestBody && !body)
    throw new Error(`operations.ts cannot generate ${Object.keys(requestBody.content)}`)
  const strange = parameters.filter(({ in: place }) => !['path', 'query', 'header'].includes(place))
  if (strange.length > 0) throw new Error(`operations.ts cannot generate parameters in ${strange[0]!.in}`)
  return fc
    .record({
      path: paths(path, within('path'), from),
      query: queries(within('query'), from),
      headers: headers(within('header'), body !== undefined, from),
      payload: body ? payloads(body, from) : fc.constant(undefined),
    })
    .map(({ path, query, headers, payload }) => ({
      ...{ method, url: path + query, headers },
      ...(payload === undefined ? {} : { payload }),
    }))
    .filter(({ payload }) => isHarmless(payload))
}

/** Values of a parameter: JSON texts without their quotes. */
function values({ operationId, in: place, name, schema }: Parameter, from: FromSchema): Text {
  const given =
    parameterOverrides[`${operationId} ${place} ${name}`] ?? parameterOverrides[`${place} ${name}`]
  if (given) return given
  const bare = (json: string) => {
    const text = json.startsWith('"') ? String(JSON.parse(json)) : json
    return place === 'header' ? asHeader(text) : text
  }
  const { fitting, nearly } = from
  return fc
    .oneof({ weight: 3, arbitrary: fitting(schema) }, { weight: 1, arbitrary: nearly(schema) })
    .map(bare)
}

function paths(path: string, parameters: Parameter[], from: FromSchema): Text {
  return fc
    .tuple(
      ...parameters.map((parameter) =>
        fc
          .oneof(
            { weight: 9, arbitrary: values(parameter, from).map(encode) },
            { weight: 1, arbitrary: rawSegments },
          )
          .map((segment) => [`{${parameter.name}}`, segment] as const),
      ),
    )
    .map((filled) => filled.reduce((text, [hole, segment]) => text.replace(hole, () => segment), path))
}

function queries(parameters: Parameter[], from: FromSchema): Text {
  const pair = (name: string, value: Text) => value.map((text) => [`${encode(name)}=${encode(text)}`])
  const none = fc.constant<string[]>([])
  const known = parameters.map((parameter) =>
    fc.oneof(
      { weight: 2, arbitrary: none },
      { weight: 1, arbitrary: pair(parameter.name, values(parameter, from)) },
    ),
  )
  const unknown = fc.oneof(
    { weight: 30, arbitrary: none },
    {
      weight: 1,
      arbitrary: fc.tuple(anyText, anyText).map(([name, text]) => [`${encode(name)}=${encode(text)}`]),
    },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom(
          '&',
          '=',
          '%',
          '%zz=1',
          'a',
          'a&a',
          '%ff=%ff',
          '__proto__=1',
          'a[b]=c',
          'wait',
          'wait=0&wait=0',
          '?',
        )
        .map((text) => [text]),
    },
  )
  return fc.tuple(...known, unknown).map((some) => {
    const all = some.flat()
    return all.length === 0 ? '' : `?${all.join('&')}`
  })
}

const CONTENT_TYPES = [
  ...['application/json; charset=utf-8', 'APPLICATION/JSON', 'application/json;', 'application/json; charset=utf-16'],
  ...['text/plain', 'text/json', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', '*/*', '/'],
  ...['application/x-ndjson', 'application/problem+json', 'application/json, text/plain', 'json', ';', 'application/'],
] // biome-ignore format: a list to read, not a column

/** Headers that any request may have, and how often. */
const common: [name: string, oneIn: number, value: Text][] = [
  [
    'x-request-id',
    4,
    fc.oneof(fc.stringMatching(/^[A-Za-z0-9._:-]{1,128}$/), headerText, fc.constant('x'.repeat(129))),
  ],
  ['accept', 10, fc.oneof(fc.constantFrom('*/*', 'text/html', 'application/json;q=0'), headerText)],
  ['pragma', 20, fc.constantFrom('no-cache', 'x')],
  ['authorization', 20, headerText],
  ['origin', 20, headerText],
  ['x-http-method-override', 40, fc.constantFrom('DELETE', 'POST')],
]

function headers(
  parameters: Parameter[],
  hasBody: boolean,
  from: FromSchema,
): fc.Arbitrary<Record<string, string>> {
  const wanted = [...common, ...parameters.map((one) => [one.name, 3, values(one, from)] as const)]
  if (hasBody) wanted.push(['idempotency-key', 20, fc.oneof(fc.constantFrom('k1', 'k2'), headerText)])
  const each = wanted.map(([name, oneIn, value]) => {
    const absent = fc.constant<[string, string][]>([])
    const present = value.map((text): [string, string][] => [[name, text]])
    return fc.oneof({ weight: oneIn - 1, arbitrary: absent }, { weight: 1, arbitrary: present })
  })
  const contentType = fc.oneof(
    { weight: 40, arbitrary: fc.constant('application/json') },
    { weight: 2, arbitrary: fc.constantFrom(...CONTENT_TYPES) },
    { weight: 1, arbitrary: headerText },
  )
  return fc
    .tuple(hasBody ? contentType : fc.constant(''), ...each)
    .map(([type, ...some]) =>
      Object.fromEntries([...some.flat(), ...(type === '' ? [] : [['content-type', type]])]),
    )
}

const { BODY_LIMIT, BATCH_BODY_LIMIT, BATCH_MAX_ITEMS } = testConfig()

function payloads(schema: Schema, { fitting, nearly }: FromSchema): fc.Arbitrary<string | undefined> {
  // Trailing spaces are valid JSON, and make a body of any size.
  const padded = fc
    .tuple(fitting(schema), fc.constantFrom(BODY_LIMIT, BATCH_BODY_LIMIT), fc.constantFrom(-1, 0, 1))
    .map(([json, limit, more]) => json.padEnd(limit + more - (Buffer.byteLength(json) - json.length)))
  return fc.oneof(
    { weight: 120, arbitrary: fitting(schema) },
    { weight: 120, arbitrary: nearly(schema) },
    { weight: 20, arbitrary: anyJson },
    { weight: 20, arbitrary: brokenJson(fitting(schema)) },
    { weight: 4, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: padded },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom(BATCH_MAX_ITEMS, BATCH_MAX_ITEMS + 1)
        .map((count) => `{"jobs":[${Array(count).fill('{"name":"n"}')}]}`),
    },
  )
}

/** Whether the request may send the service to wait. */
export function mayWait({ url, headers, payload = '' }: Case): boolean {
  return url.includes('wait=') || headers['prefer'] !== undefined || payload.includes('"wait"')
}

/** Parses a body as the service does, which skips a byte order mark. Throws for invalid JSON. */
export function bodyOf({ payload = '' }: Case): unknown {
  return JSON.parse(payload.replace(/^\ufeff/, ''))
}
