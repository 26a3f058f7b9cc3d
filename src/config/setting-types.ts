/** How a setting is declared: a TypeBox schema whose description is the text of `.env.example` and of the settings table. */
import { type TSchema, Type } from 'typebox'

export const text = (description: string, options: object = {}) => Type.String({ description, ...options })
export const integer = (description: string, fallback: number, minimum: number, maximum: number) =>
  Type.Integer({ description, default: fallback, minimum, maximum })
/** An integer that is computed from other settings, or from the machine, where it is unset. */
export const unsetInteger = (description: string, minimum: number, maximum: number) =>
  Type.Optional(Type.Integer({ description, minimum, maximum }))
export const flag = (description: string) => Type.Boolean({ description, default: false })
export const choice = <const T extends string[]>(description: string, fallback: T[number], values: T) =>
  Type.Enum(values, { description, default: fallback })
export const list = <const T extends string[]>(...values: T) => values
export const optional = <T extends TSchema>(schema: T) => Type.Optional(schema)

export const DAY_MS = 86_400_000
