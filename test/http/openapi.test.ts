/** The documentation needs no key: it is serialised once, and no page can be framed. */
import t from 'tap'
import { startApp } from '../helpers/app.ts'
import { startRedis } from '../helpers/redis.ts'

const redis = await startRedis()
t.teardown(() => redis.stop())
const app = await startApp(redis)
t.teardown(() => app.http.close())
const get = (url: string, headers: Record<string, string> = {}) => app.http.inject({ url, headers })

t.test('the document is the same text everywhere, with an ETag that makes a repeat free', async (t) => {
  const document = await get('/openapi.json')
  t.equal(document.statusCode, 200)
  t.match(document.headers['content-type'], /^application\/json/)
  t.same(document.json(), JSON.parse(JSON.stringify(app.http.swagger())))
  t.equal((await get('/docs/json')).body, document.body)
  const etag = String(document.headers['etag'])
  for (const url of ['/openapi.json', '/docs/json']) {
    const unchanged = await get(url, { 'if-none-match': etag })
    t.equal(unchanged.statusCode, 304, url)
    t.equal(unchanged.body, '')
    t.equal((await get(url, { 'if-none-match': '"other"' })).statusCode, 200)
  }
  t.match((await get('/docs/yaml')).body, /^openapi: 3\.1\.0/)
})

t.test('a document that was served once is not serialised again', async (t) => {
  await get('/docs/yaml')
  const { stringify } = JSON
  t.teardown(() => {
    JSON.stringify = stringify
  })
  let large = 0
  JSON.stringify = ((...args: Parameters<typeof stringify>) => {
    const text = stringify(...args)
    if (text?.length > 50_000) large++
    return text
  }) as typeof stringify
  for (const url of ['/openapi.json', '/docs/json', '/docs/yaml']) t.equal((await get(url)).statusCode, 200)
  t.equal(large, 0)
})

t.test('pages have a policy that allows no frame and no foreign script', async (t) => {
  for (const url of ['/docs', '/docs/', '/docs/static/oauth2-redirect.html']) {
    const { statusCode, headers } = await get(url)
    t.equal(statusCode, 200, url)
    t.equal(headers['x-frame-options'], 'DENY', url)
    t.match(headers['content-security-policy'], /frame-ancestors 'none'/, url)
    t.match(headers['content-security-policy'], /script-src 'self'/, url)
    t.notMatch(headers['content-security-policy'], /unsafe-eval|upgrade-insecure|script-src[^;]*unsafe/, url)
  }
})

t.test('every script of the page comes from a file of the service, as the policy requires', async (t) => {
  const { body } = await get('/docs')
  const scripts = [...body.matchAll(/<script([^>]*)>([^<]*)</g)]
  t.ok(scripts.length >= 3)
  for (const [, attributes = '', text = ''] of scripts) {
    const src = /src="([^"]+)"/.exec(attributes)?.[1] ?? ''
    t.equal((await get(src)).statusCode, 200, src)
    t.equal(text.trim(), '')
  }
  t.notMatch(body, /\son\w+=/)
})

t.test('no answer lets a browser guess its type', async (t) => {
  for (const url of [
    '/health/live',
    '/nowhere',
    '/docs',
    '/docs/static/swagger-ui.css',
    '/jobs/q:none',
    '/openapi.json',
  ])
    t.equal((await get(url)).headers['x-content-type-options'], 'nosniff', url)
})

t.test('a file that the documentation does not have is 404', async (t) => {
  for (const path of ['..%2f', '..%2fpackage.json', 'nothing.js', '%2e%2e/%2e%2e/x']) {
    const { statusCode, body } = await get(`/docs/static/${path}`)
    t.equal(statusCode, 404, path)
    t.match(body, /ROUTE_NOT_FOUND/)
  }
  const posted = await app.http.inject({ method: 'POST', url: '/docs/static/index.css' })
  t.equal(posted.statusCode, 405)
})
