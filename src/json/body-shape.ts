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
  /** The names as bytes. */
  nameBytes: readonly Buffer[]
  /** The shape of the member with the name at the same index; `undefined`: it is parsed. */
  shapes: (BodyShape | undefined)[]
}

export interface ArrayShape {
  kind: 'array' | 'items'
  item: BodyShape
  /** Of one item; larger ones are refused alone. */
  maxBytes: number
}

/** A value that stays text. */
export const rawValue: BodyShape = { kind: 'raw' }

/** An object of which some members are known; `undefined`: the member is parsed. Members that it does not know are too. */
export function membersOf(members: Record<string, BodyShape | undefined>): MembersShape {
  const names = Object.keys(members)
  const nameBytes = names.map((name) => Buffer.from(name))
  return { kind: 'members', names, nameBytes, shapes: Object.values(members) }
}

/** An array whose items all have a shape. A fault in one of them is a fault of the body. */
export function arrayOf(item: BodyShape): BodyShape {
  return { kind: 'array', item, maxBytes: Number.POSITIVE_INFINITY }
}

/** An array of independent items: one that is too deep, holds a forbidden key or is larger than `maxBytes` is refused alone. */
export function itemsOf(item: BodyShape, maxBytes: number): BodyShape {
  return { kind: 'items', item, maxBytes }
}

/** A tree whose nodes have `members`, and child nodes in the array member `children`. */
export function treeOf(members: Record<string, BodyShape | undefined>, children: string): BodyShape {
  const node = membersOf({ ...members, [children]: undefined })
  node.shapes[node.names.indexOf(children)] = arrayOf(node)
  return node
}
