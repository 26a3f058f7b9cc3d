/** What the document tests read in a Markdown file: code blocks, links and the anchors of its headings. */
import { dirname, join, normalize } from 'node:path'

export interface Block {
  language: string
  text: string
  /** The HTML comment on the line before the block: `runnable` for `<!-- runnable -->`; '' without one. */
  mark: string
  /** Of the opening fence, from 1. */
  line: number
}

export function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = []
  let open: Block | undefined
  let before = ''
  for (const [index, line] of markdown.split('\n').entries()) {
    if (open && line.startsWith('```')) {
      blocks.push(open)
      open = undefined
      before = ''
    } else if (open) {
      open.text += `${line}\n`
    } else if (line.startsWith('```')) {
      const mark = /^<!-- (.+) -->$/.exec(before)?.[1] ?? ''
      open = { language: line.slice(3).trim(), text: '', mark, line: index + 1 }
    } else if (line.trim() !== '') {
      before = line
    }
  }
  return blocks
}

export interface Link {
  target: string
  line: number
}

const LINK = /\]\(([^()\s]+(?:\([^()\s]*\))?)\)/g

export function linksOf(markdown: string): Link[] {
  return textLines(markdown).flatMap((text, index) =>
    [...text.replace(/`[^`]*`/g, '').matchAll(LINK)].map(([, target]) => ({
      target: target!,
      line: index + 1,
    })),
  )
}

/** As GitHub derives them from headings: lower case, no punctuation, hyphens for spaces, `-1` for a repeat. */
export function anchorsOf(markdown: string): Set<string> {
  const anchors = new Set<string>()
  for (const line of textLines(markdown)) {
    const heading = /^#{1,6} +(.+?)\s*$/.exec(line)?.[1]
    if (heading === undefined) continue
    const slug = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-')
    let unique = slug
    for (let count = 1; anchors.has(unique); count++) unique = `${slug}-${count}`
    anchors.add(unique)
  }
  return anchors
}

/** Links of `pages` (text by path) that lead nowhere, as `page:line target`. `exists` is asked for other files. */
export function brokenLinks(pages: Map<string, string>, exists: (path: string) => boolean): string[] {
  return [...pages].flatMap(([page, text]) =>
    linksOf(text)
      .filter(({ target }) => !/^[a-z]+:/.test(target) && !leadsSomewhere(page, target, pages, exists))
      .map(({ target, line }) => `${page}:${line} ${target}`),
  )
}

function leadsSomewhere(
  page: string,
  target: string,
  pages: Map<string, string>,
  exists: (path: string) => boolean,
): boolean {
  const [file = '', anchor] = target.split('#', 2)
  const path = file === '' ? page : normalize(join(dirname(page), decodeURI(file)))
  const text = pages.get(path)
  if (text === undefined) return anchor === undefined && !path.startsWith('..') && exists(path)
  return anchor === undefined || anchorsOf(text).has(anchor)
}

/** The lines of the file; those of code blocks are empty. */
function textLines(markdown: string): string[] {
  let isCode = false
  return markdown.split('\n').map((line) => {
    const isFence = line.startsWith('```')
    if (isFence) isCode = !isCode
    return isCode || isFence ? '' : line
  })
}
