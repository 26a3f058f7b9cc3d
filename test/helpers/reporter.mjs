/**
 * Reporter for tap: prints only failures, with their details, and at the very end `N passed, N failed` from tap's own
 * totals. Silent while tests pass; tap sets the exit code.
 */
import { Transform } from 'node:stream'

const TOTALS = /^# \{ total: (\d+)(?:, pass: (\d+))?(?:, fail: (\d+))?(?:, todo: (\d+))?(?:, skip: (\d+))?/

export default class Reporter extends Transform {
  rest = ''
  passed = 0
  failed = 0
  skipped = 0
  /** Indent of the failure whose details follow, -1 outside of one. Its details are indented more. */
  failureIndent = -1

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
    const isFailure = /^\s*not ok\b(?!.*# (TODO|SKIP)\b)/i.test(line)
    const isDetail = this.failureIndent >= 0 && (indent > this.failureIndent || indent < 0)
    if (isFailure) this.failureIndent = indent
    else if (!isDetail) this.failureIndent = -1
    if (isFailure || isDetail || line.startsWith('Bail out!')) this.push(`${line}\n`)
  }
}
