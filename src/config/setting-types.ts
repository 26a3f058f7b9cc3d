/** Declares settings: TypeBox schemas whose descriptions are the texts of `.env.example` and of the settings table. */
import { Type } from 'typebox'

export const text = (description: string, options: object = {}) => Type.String({ description, ...options })
export const integer = (description: string, fallback: number, minimum: number, maximum: number) =>
  Type.Integer({ description, default: fallback, minimum, maximum })
/** An integer that, while unset, is computed from other settings or from the machine. */
export const unsetInteger = (description: string, minimum: number, maximum: number) =>
  Type.Optional(Type.Integer({ description, minimum, maximum }))
export const flag = (description: string) => Type.Boolean({ description, default: false })
export const choice = <const T extends string[]>(description: string, fallback: T[number], values: T) =>
  Type.Enum(values, { description, default: fallback })
export const optional = Type.Optional

export const DAY_MS = 86_400_000
