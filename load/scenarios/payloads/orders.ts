/**
 * Structured data for the payload scenarios: orders whose lines are objects of five fields, with nested objects, decimals,
 * escapes and characters outside ASCII. The same number always gives the same order, and each number another one.
 */

export const KB = 1_024

export interface Order {
  id: string
  placedAt: string
  customer: { name: string; email: string; isCompany: boolean }
  note: string | null
  lines: OrderLine[]
}

interface OrderLine {
  sku: string
  title: string
  qty: number
  price: number
  options: { gift: boolean; tags?: string[] }
}

const NAMES = ['Ann Smith', 'Jörg Müller', 'Zoë O’Hara', 'Nguyễn Văn An', '山田 太郎', 'Li Wei', 'Tom Baker']
const TITLES = [
  'Tea, loose leaf',
  'Pan, 24 cm',
  'Frame 13" × 18"',
  'Crème brûlée dish',
  'Rope\t10 m',
  'Notebook A5',
  'Cable C:\\USB',
  'Green lamp',
]
const TAGS = ['new', 'sale', 'heavy', 'fragile', 'größe-l', 'b2b']
const NOTES = [null, 'Ring twice.\nThen leave it at the door.', 'Bitte nicht vor 9 Uhr', 'call "Ann" first']

/** An order whose JSON text has at most `bytes` bytes, by less than one line. A line has about 100 bytes. */
export function createOrder(number: number, bytes: number): Order {
  const random = createRandom(number)
  const below = (limit: number) => Math.floor(random() * limit)
  const pick = <T>(values: T[]): T => values[below(values.length)]!
  const order: Order = {
    id: `order-${100_000 + number}`,
    placedAt: new Date(1_700_000_000_000 + below(1e10)).toISOString(),
    customer: {
      name: pick(NAMES),
      email: `customer-${below(1e6)}@example.com`,
      isCompany: random() < 0.2,
    },
    note: pick(NOTES),
    lines: [],
  }
  const line = (): OrderLine => ({
    sku: `A-${below(1e6)}`,
    title: pick(TITLES),
    qty: 1 + below(20),
    price: (1 + below(50_000)) / 100,
    options: random() < 0.3 ? { gift: true, tags: [pick(TAGS)] } : { gift: false },
  })
  let size = bytesOf(order)
  for (let next = line(); ; next = line()) {
    size += bytesOf(next) + 1
    if (size > bytes) return order
    order.lines.push(next)
  }
}

/** Small data of about 100 bytes: the order without its lines. */
export function createOrderSummary(number: number): unknown {
  const { id, customer, placedAt } = createOrder(number, 0)
  return { id, to: customer.name, placedAt, total: (number % 10_000) / 100, isPaid: number % 3 === 0 }
}

export function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value))
}

/** Numbers from 0 to below 1: mulberry32. */
function createRandom(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e3779b1)
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
