/**
 * Describes where a body holds values that stay text. A shape follows members and array items by name; a value that it does not
 * name, or that is of another kind than it says, is part of the small text as it is.
 */

export type BodyShape = RawShape | MembersShape | ArrayShape

/** A value that stays text. */
interface RawShape {
  kind: 'raw'
}

export interface MembersShape {
  kind: 'members'
  /** ASCII names without escapes. */
  names: readonly string[]
  /** The shape of the member with the name at the same index. */
  shapes: readonly BodyShape[]
}

export interface ArrayShape {
  kind: 'array' | 'items'
  item: BodyShape
  /** Of one item; larger ones are refused alone. */
  maxBytes: number
}

/** A value that stays text. */
export const rawValue: BodyShape = { kind: 'raw' }

/** An object in which some members are followed. */
export function membersOf(shapes: Record<string, BodyShape>): BodyShape {
  return { kind: 'members', names: Object.keys(shapes), shapes: Object.values(shapes) }
}

/** An array whose items all have a shape. A fault in one of them is a fault of the body. */
export function arrayOf(item: BodyShape): BodyShape {
  return { kind: 'array', item, maxBytes: Number.POSITIVE_INFINITY }
}

/** An array of independent items: one that is too deep, holds a forbidden key or is larger than `maxBytes` is refused alone. */
export function itemsOf(item: BodyShape, maxBytes: number): BodyShape {
  return { kind: 'items', item, maxBytes }
}

/** The shape of a tree whose nodes have the members of `shapes`, and child nodes in the array member `children`. */
export function treeOf(shapes: Record<string, BodyShape>, children: string): BodyShape {
  const nodes: BodyShape[] = Object.values(shapes)
  const node: BodyShape = { kind: 'members', names: [...Object.keys(shapes), children], shapes: nodes }
  nodes.push(arrayOf(node))
  return node
}
