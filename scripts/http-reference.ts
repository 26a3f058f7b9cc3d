/** docs/reference/http.md: every operation and schema of openapi/openapi.json, as tables. */

interface Schema {
  $ref?: string
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  anyOf?: Schema[]
  items?: Schema
  properties?: Record<string, Schema>
  required?: string[]
  description?: string
  minimum?: number
  maximum?: number
  maxLength?: number
}

interface Parameter {
  name: string
  in: string
  required?: boolean
  description?: string
  schema: Schema
}

interface Content {
  [mediaType: string]: { schema: Schema }
}

interface Operation {
  operationId: string
  summary: string
  description?: string
  tags: string[]
  security?: { apiKey?: string[] }[]
  parameters?: Parameter[]
  requestBody?: { content: Content }
  responses: Record<string, { description: string; content?: Content }>
}

export interface OpenapiDocument {
  tags: { name: string; description: string }[]
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema> }
}

interface Route {
  name: string
  operation: Operation
}

export function httpReference(document: OpenapiDocument): string {
  const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      name: `${method.toUpperCase()} ${path}`,
      operation,
    })),
  )
  const groups = document.tags.map(({ name, description }) => {
    const members = routes.filter(({ operation }) => operation.tags[0] === name)
    return `## ${capitalize(name)}\n\n${description}\n\n${members.map(operationSection).join('\n')}`
  })
  const schemas = Object.entries(document.components.schemas).filter(([, { properties }]) => properties)
  return [PREAMBLE, overview(routes), ...groups, '## Schemas\n', ...schemas.map(schemaSection)].join('\n')
}

const PREAMBLE = `# HTTP

The contract is \`openapi/openapi.json\`; a running service serves it at \`/openapi.json\`, with an interactive page at
\`/docs\`. This page lists the same operations.

Send an API key as \`Authorization: Bearer <key>\`. A service without API keys needs none. Responses have
\`X-Request-Id\`, except to a request that is not valid HTTP; a valid id in the request is used.
[Errors](errors.md) explains the codes.
`

function overview(routes: Route[]): string {
  const rows = routes.map(({ name, operation }) => {
    const link = `[\`${name}\`](#${operation.operationId.toLowerCase()})`
    return `| ${link} | ${cell(operation.summary)} | ${scopeOf(operation)} |`
  })
  return `| Operation | Purpose | Scope |\n| --- | --- | --- |\n${rows.join('\n')}\n`
}

function scopeOf({ security = [] }: Operation): string {
  const scopes = security.flatMap(({ apiKey = [] }) => apiKey)
  return scopes.length === 0 ? 'none' : scopes.map((scope) => `\`${scope}\``).join(', ')
}

function operationSection({ name, operation }: Route): string {
  const { operationId, summary, description, parameters = [], requestBody, responses } = operation
  const parts = [
    `### ${operationId}\n`,
    `\`${name}\` · ${summary} · scope ${scopeOf(operation)}\n`,
    description === undefined ? '' : `${description}\n`,
    parameterTable(parameters),
    requestBody ? `Body: ${bodyOf(requestBody.content)}\n` : '',
    responseTable(responses),
  ]
  return parts.filter((part) => part !== '').join('\n')
}

function parameterTable(parameters: Parameter[]): string {
  if (parameters.length === 0) return ''
  const rows = parameters.map(
    ({ name, in: where, schema, description }) =>
      `| \`${name}\` | ${where} | ${typeOf(schema)} | ${cell(description ?? '')} |`,
  )
  return `| Parameter | In | Type | Meaning |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`
}

function responseTable(responses: Operation['responses']): string {
  const rows = Object.entries(responses).map(([status, { description, content }]) => {
    const codes = [...description.matchAll(/`([A-Z][A-Z_]+)`: /g)].map(([, code]) => `\`${code}\``)
    const meaning = codes.length > 0 ? codes.join(', ') : cell(description)
    return `| ${status} | ${meaning} | ${content === undefined ? '' : bodyOf(content)} |`
  })
  return `| Status | Meaning, or codes | Body |\n| --- | --- | --- |\n${rows.join('\n')}\n`
}

function bodyOf(content: Content): string {
  return Object.entries(content)
    .map(([mediaType, { schema }]) =>
      mediaType === 'application/json' || mediaType === 'application/problem+json'
        ? typeOf(schema)
        : `\`${mediaType}\``,
    )
    .join(', ')
}

function schemaSection([name, { properties = {}, required = [], description }]: [string, Schema]): string {
  const rows = Object.entries(properties).map(([property, schema]) => {
    const optional = required.includes(property) ? '' : ' (optional)'
    return `| \`${property}\`${optional} | ${typeOf(schema)} | ${cell(schema.description ?? '')} |`
  })
  const intro = description === undefined ? '' : `${description}\n\n`
  return `### ${name}\n\n${intro}| Field | Type | Meaning |\n| --- | --- | --- |\n${rows.join('\n')}\n`
}

function typeOf(schema: Schema): string {
  const { $ref, type, enum: values, const: value, anyOf, items } = schema
  if ($ref !== undefined) {
    const name = $ref.slice($ref.lastIndexOf('/') + 1)
    return `[${name}](#${name.toLowerCase()})`
  }
  if (values) return values.map((one) => `\`${String(one)}\``).join(', ')
  if (value !== undefined) return `\`${JSON.stringify(value)}\``
  if (anyOf) return anyOf.map(typeOf).join(' or ')
  if (type === 'array') return `array of ${typeOf(items ?? {})}`
  const types = type === undefined ? 'any JSON' : [type].flat().join(' or ')
  return `${types}${rangeOf(schema)}`
}

function rangeOf({ minimum, maximum, maxLength }: Schema): string {
  if (minimum !== undefined && maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER)
    return `, ${minimum} to ${maximum}`
  if (maxLength !== undefined) return `, at most ${maxLength} characters`
  return minimum === undefined ? '' : `, from ${minimum}`
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ')
}

function capitalize(text: string): string {
  return text[0]!.toUpperCase() + text.slice(1)
}
