/** Every internal link and anchor of the Markdown files leads somewhere, and every page of docs/ can be reached. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { anchorsOf, brokenLinks, linksOf } from './markdown.ts'

const SKIPPED = new Set(['node_modules', 'dist', 'data', '.git', '.load', '.redis', '.tap'])

function markdownFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return SKIPPED.has(entry.name) ? [] : markdownFiles(path)
    return entry.isFile() && entry.name.endsWith('.md') ? [path] : []
  })
}

const pages = new Map(markdownFiles('.').map((path) => [path, readFileSync(path, 'utf8')]))

t.test('every internal link leads to a file, and every anchor to a heading', async (t) => {
  t.ok(pages.has('README.md') && pages.has('docs/glossary.md'), 'the pages are found')
  t.same(brokenLinks(pages, existsSync), [])
})

t.test('every page of docs/ is linked from another page', async (t) => {
  const linked = new Set(
    [...pages].flatMap(([page, text]) =>
      linksOf(text).map(({ target }) => join(page, '..', target.split('#', 1)[0]!)),
    ),
  )
  t.same(
    [...pages.keys()].filter((page) => page.startsWith('docs/') && !linked.has(page)),
    [],
  )
})

t.test('the README has at most 150 lines', async (t) => {
  t.ok(pages.get('README.md')!.trimEnd().split('\n').length <= 150)
})

t.test('a missing file, a missing anchor and a path outside the project are broken links', async (t) => {
  const sample = new Map([
    ['docs/a.md', '# A\n[file](gone.md) [anchor](b.md#gone) [here](#gone) [out](../../etc/passwd)\n'],
    [
      'docs/b.md',
      '# B\n[good](a.md#a) [web](https://example.com/x#y) `[code](gone.md)`\n```\n[code](gone.md)\n```\n',
    ],
  ])
  t.same(
    brokenLinks(sample, () => false),
    ['docs/a.md:2 gone.md', 'docs/a.md:2 b.md#gone', 'docs/a.md:2 #gone', 'docs/a.md:2 ../../etc/passwd'],
  )
})

t.test('anchors are those of GitHub', async (t) => {
  t.same(
    [...anchorsOf('# What `retryable` means\n## Redis: TLS, and ACL\n## Same\n## Same\n```\n# code\n```\n')],
    ['what-retryable-means', 'redis-tls-and-acl', 'same', 'same-1'],
  )
})
