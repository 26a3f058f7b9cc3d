/** Counts the commands that a client sends to Redis (RESP arrays of bulk strings), across chunk boundaries. */

/** Returns a function that takes each chunk and returns how many commands end in it. */
export function createCommandCounter(): (chunk: Buffer) => number {
  let rest: Buffer = Buffer.alloc(0)
  /** Bulk strings that the current command still lacks. */
  let bulks = 0

  return (chunk) => {
    const data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    let at = 0
    let commands = 0
    for (;;) {
      const end = data.indexOf('\r\n', at)
      if (end < 0) break
      const number = Number(data.toString('latin1', at + 1, end))
      if (data[at] === 0x2a /* * */) {
        bulks = number
        at = end + 2
      } else if (data[at] === 0x24 /* $ */) {
        const next = end + 2 + number + 2
        if (next > data.length) break
        at = next
        bulks--
        if (bulks === 0) commands++
      } else {
        // An inline command, or HTTP, which the proxy also carries.
        at = end + 2
        commands++
      }
    }
    rest = data.subarray(at)
    return commands
  }
}
