/** The heap does not grow far beyond what is in use. */
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { limitHeapGrowth } from '../src/heap-growth.ts'

const oldSpaceMb = () =>
  getHeapSpaceStatistics().find(({ space_name: name }) => name === 'old_space')!.space_used_size / 2 ** 20

t.test('garbage is collected before it fills several times what is in use', async (t) => {
  limitHeapGrowth()
  const live = 500_000
  const kept: unknown[] = []
  for (let i = 0; i < live; i++) kept.push([i])
  // The limit of the growth is computed by a collection.
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  const inUse = oldSpaceMb()
  let most = inUse
  // Younger items are few enough to stay in the heap until they are replaced, so all that is replaced is old garbage.
  for (let i = 0; i < 4 * live; i++) {
    kept[(i * 7_919) % live] = [i]
    if (i % 30_000 === 0) most = Math.max(most, oldSpaceMb())
  }
  t.ok(most < 2.5 * inUse, `${most.toFixed()} MB, of which ${inUse.toFixed()} MB are in use`)
})
