/** Which error an operator sees in /health/redis. No Redis. */
import t from 'tap'
import { NO_ERRORS, recordConnected, recordError } from '../../../src/redis/connection/error-summary.ts'

const LIMIT = 'ERR max number of clients reached'
const RESET = 'read ECONNRESET'
const summaryOf = (...texts: string[]) => texts.reduce(recordError, NO_ERRORS)

t.test('the last error is shown, and all are counted', async (t) => {
  t.match(NO_ERRORS, { errors: 0, lastError: null, lastLimitError: null })
  t.match(summaryOf('WRONGPASS a', 'LOADING b'), { errors: 2, lastError: 'LOADING b', lastLimitError: null })
})

t.test('a generic error does not replace the one that names the cause', async (t) => {
  const offline = "Stream isn't writeable and enableOfflineQueue options is false"
  for (const unspecific of [RESET, 'write EPIPE', offline]) {
    t.match(summaryOf(LIMIT, unspecific), { errors: 2, lastError: LIMIT }, unspecific)
    t.equal(summaryOf(unspecific).lastError, unspecific, 'it is better than nothing')
    t.equal(summaryOf(unspecific, LIMIT).lastError, LIMIT)
  }
})

t.test('after a successful connection a generic error is shown again', async (t) => {
  const reconnected = recordConnected(summaryOf(LIMIT))
  t.match(reconnected, { errors: 1, lastError: LIMIT })
  t.equal(recordError(reconnected, RESET).lastError, RESET)
})

t.test('the last limit is kept', async (t) => {
  t.equal(summaryOf(LIMIT, 'LOADING b').lastLimitError, LIMIT)
})
