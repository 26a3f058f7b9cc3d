/** Every way in which one job of a queue is damaged, and what becomes of it. The other jobs of its queue are done either way. */
import type { TestRedis } from '../helpers/redis.ts'

type Client = TestRedis['client']

export interface Damage {
  name: string
  /** Damages the job whose key in Redis is `key`. */
  apply(client: Client, key: string): Promise<unknown>
  /** `worked`: a worker gets it. `failed`: it fails without a worker. `removed`: it leaves the queue, and its key remains. */
  fate: 'worked' | 'failed' | 'removed'
  /** Why it failed. */
  reason?: RegExp
}

const field = (name: string, value: string, fate: Damage['fate'] = 'worked', reason?: RegExp): Damage => ({
  name: `${name} ${value.length > 30 ? `of ${value.length} characters` : value}`,
  apply: (client, key) => client.hset(key, name, value),
  fate,
  ...(reason === undefined ? {} : { reason }),
})

const LONG = 'x'.repeat(70_000)
const NOT_AN_OBJECT = /^Malformed job: field opts is not a JSON object$/

export const damages: Damage[] = [
  field('progress', '{oops', 'failed', /^Malformed job: field progress is not JSON$/),
  field('progress', `"${LONG}"`),
  field('opts', '{oops', 'failed', NOT_AN_OBJECT),
  field('opts', 'null', 'failed', NOT_AN_OBJECT),
  field('opts', '7', 'failed', NOT_AN_OBJECT),
  field('opts', '[1]', 'failed', NOT_AN_OBJECT),
  field('opts', '[]'),
  field('parent', '{oops', 'failed', /^Malformed job: field parent is not JSON$/),
  field('parent', '7'),
  field('data', '{oops'),
  field('data', LONG),
  field('returnvalue', '{oops'),
  field('stacktrace', '{oops'),
  field('stacktrace', LONG),
  field('name', LONG),
  field('opts', '{"attempts":1.5}'),
  field('opts', '{"attempts":"x"}'),
  field('opts', '{"attempts":-1}'),
  field('opts', '{"attempts":1e999}'),
  field('opts', '{"attempts":3,"backoff":"x"}'),
  field('opts', '{"attempts":3,"backoff":null}'),
  field('opts', '{"attempts":3,"backoff":{"type":7}}'),
  field('opts', '{"attempts":3,"backoff":{"type":"fixed","delay":"x"}}'),
  field('opts', '{"removeOnComplete":null,"removeOnFail":{"age":"x","count":1.5}}'),
  field('opts', '{"kl":"x","stackTraceLimit":"x","lifo":7}'),
  field('timestamp', 'yesterday'),
  field('delay', 'soon'),
  field('priority', 'first'),
  field('atm', 'x'),
  field('atm', '9223372036854775807'),
  field('ats', 'x'),
  field('ats', '1.5'),
  field('stc', 'x'),
  field('rjk', 'no such scheduler'),
  field('defa', '{oops', 'failed', /^\{oops$/),
  field('deid', '{oops'),
  field('parentKey', 'nonsense'),
  { name: 'no name', apply: (client, key) => client.hdel(key, 'name'), fate: 'worked' },
  {
    name: 'no hash',
    apply: (client, key) => client.del(key),
    fate: 'failed',
    reason: /^Malformed job: it has no fields, so its hash was missing$/,
  },
  { name: 'a text instead of a hash', apply: (client, key) => client.set(key, 'x'), fate: 'removed' },
  {
    name: 'a list instead of a hash',
    apply: (client, key) => client.multi().del(key).lpush(key, 'x').exec(),
    fate: 'removed',
  },
]
