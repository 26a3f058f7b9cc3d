/**
 * Generates the OpenAPI 3.1 document from the schemas of the routes. Serves it at /openapi.json, and interactively at
 * /docs. Schemas with a `title` become components, so that a generated client has one type for each.
 */
import { createHash } from 'node:crypto'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema } from 'fastify'
import fp from 'fastify-plugin'
import { Type } from 'typebox'
import type { Scope } from '../auth/access.ts'
import { type ErrorCode, errorTable, problemResponses, problemType, SluiceError } from '../errors.ts'
import { DOCS_POLICY } from './page-headers.ts'
import { DOCS } from './route-contract.ts'

export interface OpenapiOptions {
  version: string
}

type Json = Record<string, unknown>

export const openapiPlugin = fp<OpenapiOptions>(async (app, { version }) => {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Sluice',
        version,
        summary: 'Queue-as-a-service over HTTP for BullMQ',
        description:
          'Enqueue, process and follow BullMQ jobs over HTTP. Terms are those of BullMQ: queue, job, name, data, opts, ' +
          'state. Errors are `application/problem+json` (RFC 9457) with a stable `code`; GET /problems/{name} explains ' +
          'each of them.',
        license: { name: 'MIT', identifier: 'MIT' },
      },
      servers: [{ url: '/', description: 'This service' }],
      // Declared per operation: see withSecurity.
      security: [],
      components: {
        securitySchemes: {
          apiKey: {
            type: 'http',
            scheme: 'bearer',
            description:
              'An API key, created with `npm run key -- create`. A service without keys serves every request, and listens on loopback ' +
              'only unless ALLOW_ANONYMOUS=true.',
          },
        },
      },
      tags: [
        { name: 'jobs', description: 'Enqueue jobs and follow their status.' },
        { name: 'work', description: 'Take, extend and settle leases; manage webhook subscriptions.' },
        { name: 'queues', description: 'Follow the events of a queue.' },
        { name: 'operations', description: 'Health, statistics and documentation of the service.' },
      ],
    },
    transform: ({ schema, url, route }) => ({ schema: withSecurity(schema, route.config?.scope), url }),
    transformObject: (document) =>
      ('openapiObject' in document ? hoistTitled(document.openapiObject as Json) : {}) as never,
  })

  const documentOf = createSerializedDocument(app)
  app.addHook('onRoute', (route) => {
    // The library would serialise the document for each request.
    if (route.url === `${DOCS}/json`) route.handler = sendJson
    if (route.url === `${DOCS}/yaml`)
      route.handler = (_request, reply) => reply.type('application/x-yaml').send(documentOf().yaml())
  })
  await app.register(swaggerUi, {
    routePrefix: DOCS,
    uiConfig: { tryItOutEnabled: true },
    staticCSP: DOCS_POLICY,
  })

  app.get('/openapi.json', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getOpenapi',
      summary: 'OpenAPI document',
      tags: ['operations'],
      response: {
        200: Type.Unknown({ description: 'The OpenAPI document.' }),
        304: { type: 'null', description: 'Unchanged since the ETag in If-None-Match.' },
        ...problemResponses(['OVERLOADED']),
      },
    },
    handler: sendJson,
  })

  function sendJson(request: FastifyRequest, reply: FastifyReply) {
    const { json, etag } = documentOf()
    reply.header('etag', etag).header('cache-control', 'no-cache')
    if (request.headers['if-none-match']?.includes(etag)) return reply.code(304).send()
    return reply.type('application/json; charset=utf-8').send(json)
  }

  app.get('/problems/:name', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getProblemType',
      summary: 'Explain a problem type',
      tags: ['operations'],
      params: Type.Object({
        name: Type.String({ description: 'The last segment of `type`.', examples: ['overloaded'] }),
      }),
      response: {
        200: { ...ProblemType, description: 'The explanation of the problem type.' },
        ...problemResponses(['ROUTE_NOT_FOUND']),
      },
    },
    handler: (request) => problemTypeOf((request.params as { name: string }).name),
  })
})

/** Serialises the document once, when it is first requested: its routes need no key, and are as cheap as any other. */
function createSerializedDocument(app: FastifyInstance) {
  let document: { json: string; etag: string; yaml(): string } | undefined
  return () => {
    if (document) return document
    const json = JSON.stringify(app.swagger())
    const etag = `"${createHash('sha256').update(json).digest('base64url').slice(0, 22)}"`
    let yaml: string | undefined
    document = { json, etag, yaml: () => (yaml ??= app.swagger({ yaml: true })) }
    return document
  }
}

const ProblemType = Type.Object(
  {
    type: Type.String({ description: 'Path of this page.' }),
    code: Type.String({ description: 'Stable name of the problem, for programs.' }),
    title: Type.String({ description: 'What was wrong.' }),
    status: Type.Integer({ description: 'The HTTP status of the response.' }),
    retryable: Type.Boolean({ description: 'Whether the same request may succeed later, unchanged.' }),
    advice: Type.String({ description: 'What to do.' }),
  },
  { title: 'ProblemType' },
)

function problemTypeOf(name: string) {
  const code = name.toUpperCase().replaceAll('-', '_') as ErrorCode
  if (!Object.hasOwn(errorTable, code)) throw new SluiceError('ROUTE_NOT_FOUND')
  return { type: problemType(code), code, ...errorTable[code] }
}

/** Declares the scope that an operation needs. `{}` is the alternative without a key, for a service without keys. */
function withSecurity(schema: FastifySchema, scope: Scope | 'none' | undefined): FastifySchema {
  if (scope === undefined || scope === 'none') return schema
  return { ...schema, security: [{ apiKey: [scope] }, {}] }
}

/** Moves each schema with a title to `components.schemas` and leaves a `$ref` in its place. */
function hoistTitled(document: Json): Json {
  const schemas: Json = {}
  const visit = (node: unknown, name = ''): unknown => {
    if (Array.isArray(node)) return node.map((item) => visit(item))
    if (node === null || typeof node !== 'object') return node
    const copy = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, visit(value, key)]))
    const { title } = copy
    if (typeof title !== 'string' || (copy['type'] === undefined && copy['anyOf'] === undefined)) return copy
    // The description of a whole response belongs to one status, and stays with it.
    if (name === 'schema') delete copy['description']
    schemas[title] = copy
    return { $ref: `#/components/schemas/${title}` }
  }
  const paths = visit(document['paths'])
  return { ...document, paths, components: { ...(document['components'] as Json), schemas } }
}
