/**
 * tap's stream as a person and a CI want it: a line a file, failures whole, and at the very end `N passed, N failed` from
 * tap's own totals. The exit code stays tap's.
 */
import { Transform } from 'node:stream'

const TOTALS = /^# \{ total: (\d+)(?:, pass: (\d+))?(?:, fail: (\d+))?(?:, todo: (\d+))?(?:, skip: (\d+))?/

export default class Reporter extends Transform {
  rest = ''
  passed = 0
  failed = 0
  skipped = 0
  /** Inside the details of a failure, until a line that is indented less. */
  failingIndent = -1

  _transform(chunk, _encoding, done) {
    const lines = (this.rest + chunk).split('\n')
    this.rest = lines.pop()
    for (const line of lines) this.line(line)
    done()
  }

  _flush(done) {
    if (this.rest) this.line(this.rest)
    const skipped = this.skipped > 0 ? `, ${this.skipped} skipped` : ''
    this.push(`${this.passed} passed, ${this.failed} failed${skipped}\n`)
    done()
  }

  line(line) {
    const totals = TOTALS.exec(line)
    if (totals) {
      const [, total, pass, fail = 0, todo = 0, skip = 0] = totals.map((value) => Number(value ?? 0))
      this.failed = fail
      this.skipped = skip + todo
      this.passed = pass || total - fail - this.skipped
      return
    }
    const indent = line.search(/\S/)
    if (/^\s*not ok\b/.test(line)) {
      this.failingIndent = indent
      this.push(`${line}\n`)
    } else if (this.failingIndent >= 0 && (indent > this.failingIndent || indent < 0)) {
      this.push(`${line}\n`)
    } else {
      this.failingIndent = -1
      if (/^ok\b/.test(line) || /^Bail out!/.test(line)) this.push(`${line}\n`)
    }
  }
}
