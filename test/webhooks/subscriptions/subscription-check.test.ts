/** The check of a subscription's URL: what its answers reveal about names. */
import t from 'tap'
import type { SluiceError } from '../../../src/errors.ts'
import { createAddressGuard } from '../../../src/webhooks/endpoints/address-guard.ts'
import { NotFoundError, NotResolvedError } from '../../../src/webhooks/endpoints/dns-query.ts'
import { createSubscriptionCheck } from '../../../src/webhooks/subscriptions/subscription-check.ts'

const zone: Record<string, string[] | Error> = {
  'internal.test': ['10.0.0.1'],
  'half.test': ['192.0.2.1', '8.8.8.8'],
  'missing.test': new NotFoundError(),
  'empty.test': [],
  'silent.test': new NotResolvedError(),
}

t.test('a name that does not exist and one with an internal address have the same answer', async (t) => {
  const refusals: [name: string, reason: string][] = []
  const check = createSubscriptionCheck(
    createAddressGuard({
      allowCidrs: [],
      lookup(name, _options, callback) {
        const found = zone[name]!
        if (found instanceof Error) callback(found, '')
        else
          callback(
            null,
            found.map((address) => ({ address, family: 4 })),
          )
      },
      onRefused: (name, reason) => refusals.push([name, reason]),
    }),
  )
  const answer = (name: string) =>
    check({ url: `https://${name}/` }).then(
      () => undefined,
      (error: SluiceError) => JSON.stringify({ ...error.details, code: error.code }).replaceAll(name, 'NAME'),
    )
  const answers = await Promise.all(['internal.test', 'half.test', 'missing.test', 'empty.test'].map(answer))
  t.equal(new Set(answers).size, 1, answers.join('\n'))
  t.match(answers[0], 'The name NAME has no address that webhooks may be sent to.')
  t.match(await answer('silent.test'), 'The name NAME was not resolved in time.')
  t.same(
    new Map(refusals),
    new Map([
      ['internal.test', 'resolves to 10.0.0.1'],
      ['half.test', 'resolves to 192.0.2.1'],
      ['missing.test', 'has no address'],
      ['empty.test', 'has no address'],
    ]),
    'the operator learns more',
  )
})
