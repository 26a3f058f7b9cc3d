/** The states of a job, by BullMQ's names. */

export const jobStates = [
  'waiting',
  'delayed',
  'prioritized',
  'active',
  'waiting-children',
  'completed',
  'failed',
] as const
export type JobState = (typeof jobStates)[number]
