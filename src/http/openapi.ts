/**
 * The OpenAPI 3.1 document, made from the routes' own schemas; served at /openapi.json and, to try it on, at /docs.
 * Schemas with a `title` become components, so that a generated client has one type for each.
 */
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifySchema } from 'fastify'
import fp from 'fastify-plugin'
import { Type } from 'typebox'
import type { Scope } from '../auth/access.ts'
import { type ErrorCode, errorTable, problemResponses, problemType, SluiceError } from '../errors.ts'
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
          'Enqueue jobs and follow them over HTTP. The vocabulary is BullMQ’s: queue, job, name, data, opts, state. ' +
          'Every error is application/problem+json (RFC 9457) with a stable `code`.',
        license: { name: 'MIT', identifier: 'MIT' },
      },
      servers: [{ url: '/', description: 'This service' }],
      // Said of each operation: see withSecurity.
      security: [],
      components: {
        securitySchemes: {
          apiKey: {
            type: 'http',
            scheme: 'bearer',
            description:
              'A key that `npm run key -- create` has made. A service without any key serves whoever reaches it, on loopback.',
          },
        },
      },
      tags: [
        { name: 'jobs', description: 'Enqueue jobs and follow them.' },
        { name: 'work', description: 'Take jobs, and say what became of them.' },
        { name: 'queues', description: 'Follow queues.' },
        { name: 'operations', description: 'How things are.' },
      ],
    },
    transform: ({ schema, url, route }) => ({ schema: withSecurity(schema, route.config?.scope), url }),
    transformObject: (document) =>
      ('openapiObject' in document ? hoistTitled(document.openapiObject as Json) : {}) as never,
  })

  await app.register(swaggerUi, { routePrefix: DOCS, uiConfig: { tryItOutEnabled: true } })

  app.get('/openapi.json', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getOpenapi',
      summary: 'This document',
      tags: ['operations'],
      response: { 200: Type.Unknown({ description: 'The OpenAPI document.' }), ...problemResponses([]) },
    },
    handler: () => app.swagger(),
  })

  app.get('/problems/:name', {
    config: { scope: 'none' },
    schema: {
      operationId: 'getProblemType',
      summary: 'What a kind of problem means and what to do about it',
      tags: ['operations'],
      params: Type.Object({
        name: Type.String({ description: 'The last part of `type`.', examples: ['overloaded'] }),
      }),
      response: { 200: ProblemType, ...problemResponses(['ROUTE_NOT_FOUND']) },
    },
    handler: (request) => problemTypeOf((request.params as { name: string }).name),
  })
})

const ProblemType = Type.Object(
  {
    type: Type.String({ description: 'This page.' }),
    code: Type.String({ description: 'Stable name.' }),
    title: Type.String({ description: 'What it is.' }),
    status: Type.Integer({ description: 'The HTTP status it comes with.' }),
    retryable: Type.Boolean({ description: 'Whether the same request may succeed later.' }),
    advice: Type.String({ description: 'What to do.' }),
  },
  { title: 'ProblemType' },
)

function problemTypeOf(name: string) {
  const code = name.toUpperCase().replaceAll('-', '_') as ErrorCode
  if (!Object.hasOwn(errorTable, code)) throw new SluiceError('ROUTE_NOT_FOUND')
  return { type: problemType(code), code, ...errorTable[code] }
}

/** Which key an operation asks for; `{}`: none, where the service has no keys. */
function withSecurity(schema: FastifySchema, scope: Scope | 'none' | undefined): FastifySchema {
  if (scope === undefined || scope === 'none') return schema
  return { ...schema, security: [{ apiKey: [scope] }, {}] }
}

/** Moves each schema with a title to `components.schemas`, once, and leaves a `$ref`. */
function hoistTitled(document: Json): Json {
  const schemas: Json = {}
  const visit = (node: unknown, name = ''): unknown => {
    if (Array.isArray(node)) return node.map((item) => visit(item))
    if (node === null || typeof node !== 'object') return node
    const copy = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, visit(value, key)]))
    const { title } = copy
    if (typeof title !== 'string' || (copy['type'] === undefined && copy['anyOf'] === undefined)) return copy
    // The description of a whole answer is that of one status, and stands there.
    if (name === 'schema') delete copy['description']
    schemas[title] = copy
    return { $ref: `#/components/schemas/${title}` }
  }
  const paths = visit(document['paths'])
  return { ...document, paths, components: { ...(document['components'] as Json), schemas } }
}
