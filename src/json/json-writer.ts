/**
 * Builds JSON text of strings and of values that are bytes. The result is a string unless it has bytes: joining short strings costs
 * less than copying bytes, and decoding, joining and encoding long values costs more.
 */
import { createHash, hash } from 'node:crypto'

export type JsonPart = string | Buffer

export interface JsonWriter {
  /** What follows `parts`. Append strings to it. */
  text: string
  parts: JsonPart[] | undefined
}

export function createJsonWriter(text: string): JsonWriter {
  return { text, parts: undefined }
}

export function writePart(writer: JsonWriter, part: JsonPart): void {
  if (typeof part === 'string') writer.text += part
  else {
    writer.parts ??= []
    writer.parts.push(writer.text, part)
    writer.text = ''
  }
}

/** Joins everything that was written. */
export function writtenJson({ text, parts }: JsonWriter): JsonPart {
  return parts === undefined ? text : Buffer.concat([...parts, text].map(toBytes))
}

/** The SHA-1 of everything that was written, in UTF-8, as base64url. */
export function writtenDigest({ text, parts }: JsonWriter): string {
  if (parts === undefined) return hash('sha1', text, 'base64url')
  const digest = createHash('sha1')
  for (const part of parts) digest.update(part)
  return digest.update(text).digest('base64url')
}

/** In UTF-8. */
export function bytesOfPart(part: JsonPart): number {
  return typeof part === 'string' ? Buffer.byteLength(part) : part.length
}

/** In UTF-8. */
export function toBytes(part: JsonPart): Buffer {
  return typeof part === 'string' ? Buffer.from(part) : part
}

/** Adds a member, as text, to the text of an object that has others. */
export function addMember(object: JsonPart, member: string): JsonPart {
  if (typeof object === 'string') return `${object.slice(0, -1)},${member}}`
  return Buffer.concat([object.subarray(0, -1), Buffer.from(`,${member}}`)])
}
