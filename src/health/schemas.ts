/** The contract of the operations routes. The words of the field reports are kept: totalEntries, activeBatches, … */
import { Type } from 'typebox'
import { jobStates } from '../bullmq/job-states.ts'
import { priorities } from '../redis/gateway/semaphore.ts'

const integer = (description: string) => Type.Integer({ description })
const text = (description: string) => Type.String({ description })
const orNull = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T, description: string) =>
  Type.Union([schema, Type.Null()], { description })

const Status = Type.Enum(['pass', 'warn', 'fail'], {
  description: 'pass: all is well. warn: see `recommendations`. fail: jobs are not taken.',
})

const Cache = Type.Object(
  {
    totalEntries: integer('Answers in memory.'),
    validEntries: integer('Those that may be served.'),
    expiredEntries: integer('Those past their time, kept for when Redis is away.'),
    hitRatio: Type.Number({ description: 'Hits per lookup since the start, 0 to 1.' }),
    hits: integer('Lookups answered from memory.'),
    misses: integer('Lookups that were not.'),
    bytes: integer('Memory in use, bytes, about.'),
    maxBytes: integer('CACHE_MAX_BYTES.'),
    enabled: Type.Boolean({ description: 'False: all CACHE_TTL_* are 0.' }),
  },
  { title: 'CacheStats' },
)

const Batching = Type.Object(
  {
    activeBatches: integer('Batches that are open or on their way to Redis.'),
    totalQueuedJobs: integer('Jobs that wait to be sent.'),
    batchesByType: Type.Record(Type.String(), Type.Integer(), {
      description: 'Jobs waiting or on their way, by queue.',
    }),
    batchesSent: integer('Batches since the start.'),
    jobsSent: integer('Jobs since the start.'),
    meanBatchSize: Type.Number({ description: 'Jobs per batch, and so per Redis command.' }),
  },
  { title: 'BatchingStats' },
)

const Pool = Type.Object(
  {
    created: integer('Connections this process holds or is making.'),
    active: integer('Those with a command under way.'),
    idle: integer('Those without.'),
    errors: integer('Connection errors since the start.'),
    reconnects: integer('Connections made anew since the start.'),
    byRole: Type.Object({
      commands: integer('For jobs.'),
      admin: integer('For health and counts.'),
      events: integer('For hearing what happens to jobs.'),
    }),
    lastError: orNull(Type.String(), 'Text of the last error.'),
    lastLimitError: orNull(
      Type.String(),
      'Text of the last error that spoke of a limit of server or provider.',
    ),
    budget: integer('Connections this process may hold.'),
    headroom: integer('How many more it could open.'),
  },
  { title: 'PoolStats' },
)

const Semaphore = Type.Object(
  {
    permits: integer('REDIS_MAX_CONCURRENT_OPS.'),
    inUse: integer('Operations in flight.'),
    waiting: integer('Operations that wait for a permit.'),
    maxWaiting: integer('REDIS_MAX_WAITING.'),
    waitingByPriority: Type.Object(Object.fromEntries(priorities.map((name) => [name, Type.Integer()]))),
    refused: integer('Operations answered 503 because too many waited.'),
    peak: integer('Most in flight at once.'),
  },
  { title: 'SemaphoreStats' },
)

const Events = Type.Object(
  {
    status: Type.Enum(['idle', 'live', 'degraded'], {
      description:
        'idle: nobody looks at any job. live: changes are heard. degraded: they are not, and a status is kept for 1 s only.',
    }),
    reason: orNull(Type.String(), 'Why it is degraded.'),
    streams: integer('Queues whose events are heard.'),
    subscribers: integer('Event streams that are open, and queues with jobs that somebody waits for.'),
    reads: integer('Reads since the start; each brings what all queues have.'),
    entries: integer('Events since the start.'),
    lagMs: integer('From an event to its hearing, the worst of the last 10 to 20 s, ms.'),
    gaps: integer('How often events may have been missed, and what was kept was dropped.'),
    resets: integer('How often the connection was given up because Redis was silent on it.'),
  },
  { title: 'EventsStats' },
)

const Counts = Type.Record(
  Type.String(),
  Type.Object(Object.fromEntries(jobStates.map((state) => [state, Type.Integer()]))),
  { description: 'Jobs per state, by queue; the first 50 queues by name.' },
)

const common = {
  queues: Counts,
  queuesKnown: integer(
    'How many queues there are that the caller may see; the first 50 of all there are in the service are counted.',
  ),
  recommendations: Type.Array(Type.String(), {
    description: 'What to do, in sentences. Empty when all is well.',
  }),
  responseTimeMs: Type.Number({ description: 'How long this answer took, ms.' }),
}

export const HealthSummary = Type.Object(
  {
    status: Status,
    version: text('Version of the service.'),
    checkedAt: Type.String({ format: 'date-time', description: 'When this was measured.' }),
    cached: Type.Boolean({ description: 'True: served from memory, measured at `checkedAt`.' }),
    uptimeS: integer('Seconds since the start.'),
    redis: Type.Object({
      reachable: Type.Boolean({ description: 'Whether Redis answered.' }),
      roundTripMs: orNull(Type.Number(), 'A PING, ms.'),
      error: orNull(Type.String(), 'Why it did not.'),
    }),
    pool: Pool,
    cache: Cache,
    batching: Batching,
    ...common,
  },
  { title: 'Health' },
)

const Server = Type.Object(
  {
    version: text('redis_version.'),
    role: text('master or slave.'),
    loading: Type.Boolean({ description: 'Whether it is reading its data into memory.' }),
    uptimeS: integer('Seconds since its start.'),
    connectedClients: integer('Connections of everybody.'),
    maxClients: orNull(Type.Integer(), 'Its limit on connections, where it says so.'),
    usedMemoryBytes: integer('Memory in use, bytes.'),
    maxMemoryBytes: integer('Limit on memory, bytes; 0: none.'),
    evictionPolicy: text('maxmemory-policy; anything but noeviction may throw out jobs.'),
    opsPerSecond: integer('Commands a second, of everybody.'),
    rejectedConnections: integer('Connections refused since its start.'),
    replicas: integer('Replicas that follow it.'),
    durability: Type.Object({
      mode: text('How it persists.'),
      meaning: text('What that means for a job that was acknowledged.'),
    }),
  },
  { title: 'RedisServer' },
)

const Budget = Type.Object(
  {
    providerLimit: integer('REDIS_PROVIDER_LIMIT.'),
    reserved: integer('REDIS_RESERVED_CONNECTIONS.'),
    usable: integer('What all replicas may hold together.'),
    replicas: integer('How many share it.'),
    perProcess: integer('What this process may hold.'),
    wanted: integer('What it opens.'),
    usefulMax: integer('Concurrent operations + 20: more could not be used.'),
  },
  { title: 'ConnectionBudget' },
)

const CommandsSent = Type.Record(Type.String(), Type.Integer(), {
  description: 'Redis commands since the start, by operation.',
})

export const RedisHealth = Type.Object(
  {
    status: Status,
    roundTripMs: orNull(Type.Number(), 'A PING, ms.'),
    connections: Pool,
    budget: Budget,
    semaphore: Semaphore,
    events: Events,
    commandsSent: CommandsSent,
    server: Type.Union([Server, Type.Null()], {
      description: 'What Redis says of itself; null when it does not.',
    }),
    error: orNull(Type.String(), 'Why Redis did not answer.'),
    limitError: orNull(Type.String(), 'What server or provider last said about a limit.'),
    breaker: Type.Object(
      {
        open: Type.Boolean({
          description: 'True: a limit is reached, and nothing is sent until it may have passed.',
        }),
        reason: orNull(Type.String(), 'What the provider said.'),
        retryInMs: integer('Until one command may try it, ms.'),
        opened: integer('How often it has opened since the start.'),
      },
      { description: "Keeps commands back while a provider's limit is reached." },
    ),
    replicasWanted: integer('DURABILITY_REPLICAS: as many have a job when it is acknowledged.'),
    ...common,
  },
  { title: 'RedisHealth' },
)

export const Stats = Type.Object(
  {
    cache: Cache,
    batching: Batching,
    pool: Pool,
    semaphore: Semaphore,
    events: Events,
    waiting: integer('Requests that are held until their job has finished or changed.'),
    waitingWorkers: integer('Consumers that wait for a job: requests of workers, and subscriptions.'),
    webhooks: Type.Object(
      {
        subscriptions: integer('Queues whose jobs are sent to a URL.'),
        inFlight: integer('Deliveries on their way.'),
        delivered: integer('Answered 2xx.'),
        retried: integer('Failed, and given to the backoff of their jobs.'),
        failed: integer('Refused for good.'),
      },
      { description: 'Of this process, since the start.' },
    ),
    commandsSent: CommandsSent,
    openQueues: integer('Queues in which this process has seen jobs; they cost no connection.'),
    requestsByKey: Type.Record(Type.String(), Type.Integer(), {
      description:
        'Requests since the start, by the id of the API key. Batches are shared: commands have no key.',
    }),
  },
  { title: 'Stats' },
)

export const Live = Type.Object({ status: Type.Literal('pass') }, { title: 'Live' })

export const Ready = Type.Object(
  {
    status: Type.Enum(['pass', 'fail'], { description: 'Whether to send requests here.' }),
    reason: orNull(Type.String(), 'Why not.'),
  },
  { title: 'Ready' },
)
