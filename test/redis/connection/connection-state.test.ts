/** The transitions of a connection. No Redis. */
import t from 'tap'
import {
  type ConnectionState,
  commandTimedOut,
  connecting,
  connectionClosed,
  connectionReady,
  downMs,
  replyReceived,
} from '../../../src/redis/connection/connection-state.ts'

const READY = connectionReady()
const DOWN = connectionClosed(READY, 100)
const SUSPECT = commandTimedOut(READY)
const SUSPECT_AND_DOWN = connectionClosed(SUSPECT, 100)

t.test('a connection is down from its first attempt until it is ready', async (t) => {
  const first = connecting(10)
  t.match(first, { phase: 'connecting', wasReady: false })
  t.equal(downMs(first, 35), 25)
  t.equal(connectionClosed(first, 20), first, 'a failed attempt changes nothing')
  t.equal(downMs(READY, 35), 0)
  t.match(READY, { phase: 'ready', wasReady: true })
})

t.test('a lost connection is down since its loss, however often it is tried again', async (t) => {
  t.match(DOWN, { phase: 'down', wasReady: true })
  t.equal(downMs(connectionClosed(DOWN, 400), 500), 400)
})

t.test('a timeout makes a connection suspect; a reply makes it ready again', async (t) => {
  t.equal(SUSPECT.phase, 'suspect')
  t.equal(commandTimedOut(SUSPECT), SUSPECT)
  t.equal(replyReceived(SUSPECT).phase, 'ready')
  t.equal(downMs(SUSPECT, 500), 0, 'its socket is not lost')
})

t.test('a suspect connection stays suspect while it reconnects', async (t) => {
  t.match(SUSPECT_AND_DOWN, { phase: 'suspect', downSince: 100 })
  t.equal(connectionReady().phase, 'ready')
  t.match(replyReceived(SUSPECT_AND_DOWN), { phase: 'down', downSince: 100 })
  t.equal(replyReceived(commandTimedOut(connecting(0))).phase, 'connecting')
})

t.test('a reply changes no other state', async (t) => {
  for (const state of [connecting(0), READY, DOWN] satisfies ConnectionState[]) {
    t.equal(replyReceived(state), state, state.phase)
  }
})
