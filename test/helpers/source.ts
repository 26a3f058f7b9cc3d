/** The source tree as the architecture rules see it: files, imports, and what the TypeScript parser finds in each. */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import ts from 'typescript'

const root = 'src'

export interface Import {
  from: string
  /** A package's name, or a path below src. */
  to: string
  typeOnly: boolean
}

export const allFiles = readdirSync(root, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => relative(root, join(entry.parentPath, entry.name)))
  .sort()
export const files = allFiles.filter((file) => file.endsWith('.ts'))
export const luaFiles = allFiles.filter((file) => file.endsWith('.lua'))

export const read = (file: string) => readFileSync(join(root, file), 'utf8')
export const folderOf = (file: string) => (file.includes('/') ? file.slice(0, file.indexOf('/')) : '')
export const nameOf = (file: string) => basename(file).replace(/\.\w+$/, '')

const parsed = new Map<string, ts.SourceFile>()

export function parse(file: string): ts.SourceFile {
  let source = parsed.get(file)
  if (!source) {
    source = ts.createSourceFile(file, read(file), ts.ScriptTarget.Latest, true)
    parsed.set(file, source)
  }
  return source
}

/** Every node of a file, depth first. */
export function nodesOf(file: string): ts.Node[] {
  const nodes: ts.Node[] = []
  const visit = (node: ts.Node): void => {
    nodes.push(node)
    ts.forEachChild(node, visit)
  }
  visit(parse(file))
  return nodes
}

export const imports: Import[] = files.flatMap((from) =>
  nodesOf(from).flatMap((node): Import[] => {
    const isDeclaration = ts.isImportDeclaration(node) || ts.isExportDeclaration(node)
    if (!isDeclaration || !node.moduleSpecifier || !ts.isStringLiteral(node.moduleSpecifier)) return []
    const { text } = node.moduleSpecifier
    const to = text.startsWith('.') ? relative(root, join(root, dirname(from), text)) : text
    const typeOnly = ts.isImportDeclaration(node)
      ? node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword
      : node.isTypeOnly
    return [{ from, to, typeOnly }]
  }),
)

/** Lines of each named function, and of each function that is a property: `file name`. Nested functions count in both. */
export function functionLengths(file: string): { name: string; lines: number }[] {
  const source = parse(file)
  return nodesOf(file).flatMap((node) => {
    if (!ts.isFunctionLike(node) || !('body' in node) || !node.body) return []
    const line = (position: number) => source.getLineAndCharacterOfPosition(position).line
    return [{ name: functionName(node), lines: line(node.end) - line(node.getStart()) + 1 }]
  })
}

function functionName(node: ts.SignatureDeclaration): string {
  if (node.name) return node.name.getText()
  const { parent } = node
  if ((ts.isVariableDeclaration(parent) || ts.isPropertyAssignment(parent)) && parent.name)
    return parent.name.getText()
  // A plugin is wrapped: `export const xPlugin = fp(async (app) => …)`.
  if (ts.isCallExpression(parent) && ts.isVariableDeclaration(parent.parent))
    return parent.parent.name.getText()
  return 'anonymous'
}

/** Names that a file declares and exports. */
export function exportedNames(file: string): string[] {
  return parse(file).statements.flatMap((statement) => {
    const modifiers = ts.canHaveModifiers(statement) ? ts.getModifiers(statement) : undefined
    if (!modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) return []
    if (ts.isVariableStatement(statement))
      return statement.declarationList.declarations.map(({ name }) => name.getText())
    return 'name' in statement && statement.name ? [(statement.name as ts.Identifier).text] : []
  })
}

/** A file on an import cycle, with the cycle; `undefined` when there is none. Type imports count. */
export function findCycle(): string[] | undefined {
  const targets = new Map<string, string[]>()
  for (const { from, to } of imports)
    if (to.endsWith('.ts')) targets.set(from, [...(targets.get(from) ?? []), to])
  const done = new Set<string>()
  const visit = (file: string, path: string[]): string[] | undefined => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file]
    if (done.has(file)) return undefined
    for (const target of targets.get(file) ?? []) {
      const cycle = visit(target, [...path, file])
      if (cycle) return cycle
    }
    done.add(file)
    return undefined
  }
  for (const file of files) {
    const cycle = visit(file, [])
    if (cycle) return cycle
  }
  return undefined
}
