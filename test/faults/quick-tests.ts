/** Runs scenarios as tap tests with small numbers: every check must hold, and every control must miss its check. */
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { ORDINARY_TOOK } from './attacks.ts'
import {
  type Check,
  holds,
  missesItsCheck,
  runScenario,
  type Scale,
  type Scenario,
  sentence,
} from './scenario.ts'
import type { Entry } from './testbed.ts'

const scale: Scale = { entry: newestEntry(), isQuick: true, minutes: 0, progress: () => {} }

export async function runQuickTests(t: Test, scenarios: Scenario[]): Promise<void> {
  for (const scenario of scenarios) {
    await t.test(`${scenario.id}: ${scenario.fault}`, async (t) => {
      const played = await runScenario(scenario, scale)
      for (const check of played.checks.filter(isIndependentOfLoad))
        t.ok(holds(check), sentence(check), { samples: check.samples })
      t.comment(JSON.stringify(played.counts))
      for (const control of scenario.controls) {
        const controlled = await runScenario(control, scale)
        t.ok(
          missesItsCheck(control, controlled),
          `control: with ${control.what}, “${control.misses}” is missed`,
        )
      }
    })
  }
}

/** How long requests take beside an attack is judged by `npm run test:faults`, on a machine without other load. */
function isIndependentOfLoad({ what }: Check): boolean {
  return !what.startsWith(ORDINARY_TOOK)
}

/** The build, which starts twice as fast and is what ships, unless the source has changed since. */
function newestEntry(): Entry {
  const built = 'dist/.built'
  if (!existsSync(built)) return 'src/server.ts'
  const builtAt = statSync(built).mtimeMs
  const files = readdirSync('src', { recursive: true, withFileTypes: true })
  const isNewer = files.some(({ parentPath, name }) => statSync(join(parentPath, name)).mtimeMs > builtAt)
  return isNewer ? 'src/server.ts' : 'dist/server.js'
}
