/**
 * Gives every HTML page a content security policy and forbids frames, so that no other site can show a page of this
 * service and catch the clicks on it. request-logging.ts sends X-Content-Type-Options with every answer.
 */
import type { onSendHookHandler } from 'fastify'
import fp from 'fastify-plugin'

/** Of a page that declares none. */
const PAGE_POLICY = "default-src 'none'; frame-ancestors 'none'"

/** Scripts and styles of this service only. Swagger UI sets inline styles, and has images in data URLs. */
export const DOCS_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'",
  "form-action 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ')

export const pageHeadersPlugin = fp(async (app) => {
  app.addHook('onRoute', (route) => {
    // It sends JSON only.
    if (route.config?.countsBytes) return
    const onSend: onSendHookHandler = (_request, reply, _payload, done) => {
      const type = reply.getHeader('content-type')
      if (typeof type === 'string' && type.startsWith('text/html')) {
        reply.header('x-frame-options', 'DENY')
        if (!reply.hasHeader('content-security-policy')) reply.header('content-security-policy', PAGE_POLICY)
      }
      done()
    }
    route.onSend = [route.onSend ?? [], onSend].flat()
  })
})
