/** The documentation page in a real browser, under its content security policy. Skipped where there is no Chromium. */
import t from 'tap'
import { startApp } from '../helpers/app.ts'
import { findBrowser, openPage } from '../helpers/browser.ts'
import { startRedis } from '../helpers/redis.ts'

const browser = await findBrowser()
const skip = browser === undefined && 'no Chromium on the PATH; install one, or set CHROME_PATH'

/** Runs in the page: the result of `find` once it is truthy. */
const IN_PAGE = `async function until(find) {
  for (let tries = 0; tries < 500; tries++) {
    const found = find()
    if (found) return found
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error('Did not appear: ' + find)
}`

/** Opens an operation, sends its example and resolves with the status of the response and its body. */
const tryOut = (operation: string) => `(async () => {
  ${IN_PAGE}
  // The page may replace any element, so each is looked up when it is used.
  const select = (selector) => document.querySelector('#${operation} ' + selector)
  const header = await until(() => select('.opblock-summary-control'))
  header.click()
  let tries = 0
  const row = await until(() => {
    // A click has no effect until the page has noted the values of the form.
    if (tries++ % 25 === 0) select('.execute')?.click()
    return select('.live-responses-table .response')
  })
  return {
    status: row.querySelector('.response-col_status').textContent,
    body: row.querySelector('.highlight-code pre, .highlight-code code').textContent,
  }
})()`

t.test('the page renders every operation, and sends requests to its own service', { skip }, async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const app = await startApp(redis)
  t.teardown(() => app.http.close())
  const url = await app.http.listen({ host: '127.0.0.1', port: 0 })
  const { paths } = (await app.http.inject('/openapi.json')).json()
  const operations = Object.values<object>(paths).flatMap((path) => Object.keys(path))

  const page = await openPage(t, browser!)
  await page.goto(`${url}/docs`)
  const count = await page.evaluate<number>(`(async () => {
    ${IN_PAGE}
    await until(() => document.querySelector('.opblock'))
    return document.querySelectorAll('.opblock').length
  })()`)
  t.equal(count, operations.length)

  const added = await page.evaluate<{ status: string; body: string }>(tryOut('operations-jobs-addJob'))
  t.equal(added.status, '201', added.body)
  const { id } = JSON.parse(added.body)
  t.equal((await app.http.inject(`/jobs/${id}`)).json().name, 'welcome')
  const ready = await page.evaluate<{ status: string }>(tryOut('operations-operations-getReadiness'))
  t.equal(ready.status, '200')
  t.same(page.problems, [])
})
