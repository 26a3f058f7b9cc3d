/**
 * Preloaded into a service with `--import`: its wall clock is off by the number of ms in CLOCK_FILE, which may change while
 * it runs. As with a real step, `performance.now()` and timers do not notice.
 */
import { readFileSync } from 'node:fs'

const REREAD_MS = 10
const RealDate = Date
let offsetMs = 0

function reread() {
  const read = Number(readFileSync(process.env['CLOCK_FILE'], 'utf8'))
  if (Number.isFinite(read)) offsetMs = read
}

globalThis.Date = class extends RealDate {
  constructor(...args) {
    if (args.length === 0) super(RealDate.now() + offsetMs)
    else super(...args)
  }

  static now() {
    return RealDate.now() + offsetMs
  }
}

reread()
setInterval(reread, REREAD_MS).unref()
