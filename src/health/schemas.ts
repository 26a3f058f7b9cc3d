/** Schemas of the health routes. Features bring the schemas of their own stats. */
import { type TSchema, Type } from 'typebox'
import { jobStates } from '../bullmq/job-states.ts'
import { byQueue } from '../queues/schemas.ts'
import { priorities } from '../redis/gateway/semaphore.ts'

const integer = (description: string) => Type.Integer({ description })
const text = (description: string) => Type.String({ description })
const orNull = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T, description: string) =>
  Type.Union([schema, Type.Null()], { description })

const Status = Type.Enum(['pass', 'warn', 'fail'], {
  description: 'pass: healthy. warn: see `recommendations`. fail: jobs are not accepted.',
})

const Pool = Type.Object(
  {
    created: integer('Connections that this process holds or is opening.'),
    active: integer('Connections with a command in flight.'),
    idle: integer('Connections without a command in flight.'),
    errors: integer('Connection errors since the start.'),
    reconnects: integer('Reconnects since the start.'),
    byRole: Type.Object({
      commands: integer('Connections for jobs.'),
      admin: integer('Connections for health, counts and other slow commands.'),
      events: integer('Connections that receive job events.'),
    }),
    lastError: orNull(Type.String(), 'Text of the last error.'),
    lastLimitError: orNull(
      Type.String(),
      'Text of the last error that named a limit of the server or the provider.',
    ),
    budget: integer('Connections that this process may hold.'),
    headroom: integer('Connections that it may still open.'),
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
    refused: integer('Operations refused with 503 because too many waited.'),
    peak: integer('Most operations in flight at once since the start.'),
  },
  { title: 'SemaphoreStats' },
)

const Events = Type.Object(
  {
    status: Type.Enum(['idle', 'live', 'degraded'], {
      description:
        'idle: no queue is followed. live: changes of jobs are received. degraded: they are not, and a status is cached for 1 s only.',
    }),
    reason: orNull(Type.String(), 'Why it is degraded.'),
    streams: integer('Queues whose events are followed.'),
    subscribers: integer('Open event streams, and queues with jobs that a request waits for.'),
    reads: integer('Reads since the start; one read returns the events of all queues.'),
    entries: integer('Events since the start.'),
    lagMs: integer('Time from an event to its receipt, the largest of the last 10 to 20 s, ms.'),
    gaps: integer('Times that events may have been missed, so that cached statuses were dropped.'),
    polled: integer(
      'Queues that requests wait for without a feed: they do not exist yet, or are beyond EVENTS_MAX_QUEUES.',
    ),
    beyondLimit: integer('Those of them that are beyond EVENTS_MAX_QUEUES.'),
    eventless: integer('Followed queues that keep no events; they are polled.'),
    resets: integer('Times that the connection was closed because Redis sent nothing on it.'),
  },
  { title: 'EventsStats' },
)

const Counts = byQueue(
  Type.Object(Object.fromEntries(jobStates.map((state) => [state, Type.Integer()]))),
  'Jobs per state, by queue, for at most 50 queues: of the 500 that were used last, those with the most waiting and failed jobs.',
)

const common = {
  queues: Counts,
  queuesKnown: integer(
    'Number of queues that the caller may see, listed or not. For a key that is limited to some queues: among the 500 of the ' +
      'service that were used last.',
  ),
  queuesOmitted: integer('Queues among them that `queues` does not list.'),
  recommendations: Type.Array(Type.String(), {
    description: 'What the operator should do, in sentences. Empty when nothing is wrong.',
  }),
  responseTimeMs: Type.Number({ description: 'Time to produce this response, ms.' }),
}

const summary = {
  status: Status,
  version: text('Version of the service.'),
  checkedAt: Type.String({ format: 'date-time', description: 'When this was measured.' }),
  cached: Type.Boolean({
    description: 'True when served from memory; `checkedAt` says when it was measured.',
  }),
  uptimeS: integer('Time since the start of the process, seconds.'),
  redis: Type.Object({
    reachable: Type.Boolean({ description: 'Whether Redis answered.' }),
    roundTripMs: orNull(Type.Number(), 'Round trip of a PING, ms.'),
    error: orNull(Type.String(), 'Why Redis did not answer.'),
  }),
  pool: Pool,
}

/** GET /health. `stats`: properties of features, by name. */
export function createSummarySchema(stats: Record<string, TSchema>) {
  return Type.Object({ ...summary, ...stats, ...common }, { title: 'Health' })
}

const Server = Type.Object(
  {
    version: text('redis_version.'),
    role: text('master or slave.'),
    loading: Type.Boolean({ description: 'Whether Redis is loading its data into memory.' }),
    uptimeS: integer('Time since the start of Redis, seconds.'),
    connectedClients: integer('Connections of all clients.'),
    maxClients: orNull(Type.Integer(), 'Limit on connections, where the server reports it.'),
    usedMemoryBytes: integer('Memory in use, bytes.'),
    maxMemoryBytes: integer('Limit on memory, bytes; 0: none.'),
    evictionPolicy: text('maxmemory-policy; with any policy but noeviction Redis may evict jobs.'),
    opsPerSecond: integer('Commands per second of all clients.'),
    rejectedConnections: integer('Connections refused since the start of Redis.'),
    replicas: integer('Replicas that follow this Redis.'),
    durability: Type.Object({
      mode: text('How Redis persists its data.'),
      meaning: text('What that means for a job that was acknowledged.'),
    }),
  },
  { title: 'RedisServer' },
)

const Budget = Type.Object(
  {
    providerLimit: integer('REDIS_PROVIDER_LIMIT.'),
    reserved: integer('REDIS_RESERVED_CONNECTIONS.'),
    usable: integer('Connections that all replicas of this service may hold together.'),
    replicas: integer('Replicas of this service that share them.'),
    perProcess: integer('Connections that this process may hold.'),
    wanted: integer('Connections that this process opens.'),
    usefulMax: integer('Concurrent operations + 20: more connections cannot be used at once.'),
  },
  { title: 'ConnectionBudget' },
)

const Breaker = Type.Object(
  {
    open: Type.Boolean({
      description: 'True: a limit is reached, and no command is sent until it may have passed.',
    }),
    reason: orNull(Type.String(), 'What the provider said.'),
    retryInMs: integer('Time until one command tests the limit, ms.'),
    opened: integer('Times that it has opened since the start.'),
  },
  { description: "Holds commands back while a provider's limit is reached." },
)

const CommandsSent = Type.Record(Type.String(), Type.Integer(), {
  description: 'Redis commands since the start, by operation.',
})

export const RedisHealthSchema = Type.Object(
  {
    status: Status,
    roundTripMs: orNull(Type.Number(), 'Round trip of a PING, ms.'),
    connections: Pool,
    budget: Budget,
    semaphore: Semaphore,
    events: Events,
    commandsSent: CommandsSent,
    server: Type.Union([Server, Type.Null()], {
      description: 'What Redis reports about itself; null while it does not answer.',
    }),
    error: orNull(Type.String(), 'Why Redis did not answer.'),
    limitError: orNull(Type.String(), 'Last error of the server or the provider that named a limit.'),
    breaker: Breaker,
    replicasWanted: integer('DURABILITY_REPLICAS: replicas that hold a job before it is acknowledged.'),
    ...common,
  },
  { title: 'RedisHealth' },
)

const processStats = {
  pool: Pool,
  semaphore: Semaphore,
  events: Events,
  waitingWorkers: integer('Takes that wait for a job: requests of HTTP workers, and webhook subscriptions.'),
  malformedJobs: integer('Jobs that could not be worked, and were failed instead, since the start.'),
  commandsSent: CommandsSent,
  openQueues: integer('Queues in which this process has seen jobs; they cost no connection.'),
  knownQueues: Type.Object(
    {
      known: orNull(Type.Integer(), 'Names in the list when this process last wrote to it.'),
      forgotten: integer(
        'Names that this process has removed since its start, of queues that were empty and unused.',
      ),
      displaced: integer(
        'Names that this process has removed since its start because there were more than KNOWN_QUEUES_MAX.',
      ),
    },
    { title: 'KnownQueuesStats', description: 'The list of queues, which all processes share.' },
  ),
  requestsByKey: Type.Record(Type.String(), Type.Integer(), {
    description:
      'Requests since the start, by id of the API key. A key that is limited to some queues sees only its own. Commands are not ' +
      'counted by key, since keys share batches.',
  }),
}

/** GET /stats. `stats`: properties of features, by name. */
export function createStatsSchema(stats: Record<string, TSchema>) {
  return Type.Object({ ...stats, ...processStats }, { title: 'Stats' })
}

export const Live = Type.Object({ status: Type.Literal('pass') }, { title: 'Live' })

export const Ready = Type.Object(
  {
    status: Type.Enum(['pass', 'fail'], { description: 'pass: requests may be sent here.' }),
    reason: orNull(Type.String(), 'Why requests should not be sent here.'),
  },
  { title: 'Ready' },
)
