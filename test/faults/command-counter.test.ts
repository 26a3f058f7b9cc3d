/** Commands are counted correctly across chunk boundaries. */
import t from 'tap'
import { createCommandCounter } from './command-counter.ts'

const commands = Buffer.from(
  '*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8\r\nb\r\n*1\r\n\r\n\r\nINFO\r\n',
)

t.test('all commands of a chunk are counted, but not data that looks like a command', async (t) => {
  t.equal(createCommandCounter()(commands), 3)
})

t.test('a command that spans chunks is counted once', async (t) => {
  for (let cut = 1; cut < commands.length; cut++) {
    const count = createCommandCounter()
    const counted = count(commands.subarray(0, cut)) + count(commands.subarray(cut))
    t.equal(counted, 3, `cut after ${cut} bytes`)
  }
})
