#!/usr/bin/env bash
# `examples/worker-pull.sh COMMAND [ARGUMENT...]`: a worker that speaks nothing but HTTP; it needs bash, curl and jq.
# One job at a time: the command gets its data on stdin, as JSON, and JOB_ID, JOB_NAME and JOB_ATTEMPT as variables. What
# it writes to stdout is the result: JSON if it is one JSON value, otherwise text. Exit code 0 completes the job, 100
# fails it for good, any other fails it, so that it is tried again by its attempts; stderr says why.
# While it runs the lease is extended. A job whose lease was lost goes to another worker, so it may be done twice: let
# that do no harm. On SIGTERM and SIGINT the command is ended, its job is released, and the exit code is 0.
# Settings: SLUICE_URL (http://127.0.0.1:3000), SLUICE_KEY (an API key with the scope `work`), QUEUE (default),
# LEASE_MS (30000). Try it: QUEUE=texts examples/worker-pull.sh wc -c
set -u

if [ $# -eq 0 ]; then
  echo "usage: $0 COMMAND [ARGUMENT...]" >&2
  exit 2
fi
url=${SLUICE_URL:-http://127.0.0.1:3000}
lease_ms=${LEASE_MS:-30000}
third_s=$(awk -v ms="$lease_ms" 'BEGIN { print ms / 3000 }')
tenth_s=$(awk -v ms="$lease_ms" 'BEGIN { print ms / 10000 }')
wait_s=20
timeout_s=10
max_pause_s=10
kill_after_s=5

umask 077
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
# In a file, since anybody can read what stands on a command line.
echo "${SLUICE_KEY:+authorization: Bearer $SLUICE_KEY}" >"$tmp/key"
jq -n --arg queue "${QUEUE:-default}" --argjson leaseMs "$lease_ms" --arg worker "$HOSTNAME:$$" \
  '{$queue, max: 1, $leaseMs, $worker}' >"$tmp/next" || exit 1
jq --argjson wait "$wait_s" 'del(.queue) + {$wait}' "$tmp/next" >"$tmp/take"
leases=/queues/$(jq -r '.queue | @uri' "$tmp/next")/leases

stopping='' # since when, s
endable=''  # the child that a signal ends, or with a minus its process group
failures=0

stop() {
  stopping=${stopping:-$SECONDS}
  [ -z "$endable" ] || kill -- "$endable" 2>/dev/null
}
trap stop TERM INT

# await PID: gives its exit code. A signal interrupts `wait`, which then goes on.
await() {
  local code
  while :; do
    wait "$1" 2>/dev/null
    code=$?
    kill -0 "$1" 2>/dev/null || return "$code"
  done
}

# await_endable PID: as above, but a signal ends it, also one that came just before.
await_endable() {
  endable=$1
  [ -z "$stopping" ] || stop
  await "$1"
  endable=''
}

# post NAME PATH TIMEOUT_S: sends $tmp/NAME, and leaves $tmp/NAME.answer, .head and .status.
# It becomes curl, so that a signal to it is one to curl: call it with & or in ( ).
post() {
  rm -f "$tmp/$1."*
  exec curl --silent --show-error --max-time "$3" --header 'content-type: application/json' --header "@$tmp/key" \
    --data-binary "@$tmp/$1" --dump-header "$tmp/$1.head" --output "$tmp/$1.answer" --write-out '%{http_code}' \
    "$url$2" >"$tmp/$1.status"
}

# status_of NAME: 000 if there was no answer.
status_of() {
  local status=''
  [ ! -f "$tmp/$1.status" ] || read -r status <"$tmp/$1.status"
  echo "${status:-000}"
}

# pause NAME: for as long as its answer says, else longer each time; and never all workers until the same moment.
pause() {
  local seconds
  touch "$tmp/$1.head"
  seconds=$(awk -v failures="$failures" -v most="$max_pause_s" -v seed="$RANDOM" '
    tolower($1) == "retry-after:" { asked = $2 + 0 }
    END {
      srand(seed)
      backoff = 0.25 * 2 ^ failures
      print (asked ? asked * (1 + rand() / 4) : (backoff < most ? backoff : most) * (0.5 + rand() / 2))
    }' "$tmp/$1.head")
  failures=$((failures < 10 ? failures + 1 : 10))
  # At the end there is no time to lose.
  [ -z "$stopping" ] || seconds=0.5
  echo "$1: status $(status_of "$1"), again in $seconds s" >&2
  sleep "$seconds" &
  if [ -z "$stopping" ]; then await_endable $!; else await $!; fi
}

# Leaves a job in $tmp/job, if there is one.
take() {
  post take "$leases" $((wait_s + timeout_s)) &
  await_endable $!
  case $(status_of take) in
    200) jq '.jobs[0]' "$tmp/take.answer" >"$tmp/job" ;;
    204) ;;
    000 | 408 | 425 | 429 | 5??)
      [ -n "$stopping" ] || pause take
      return
      ;;
    *)
      echo "The service refuses this worker: $(cat "$tmp/take.answer")" >&2
      exit 1
      ;;
  esac
  failures=0
}

# In the background, until it is ended, or the worker is, or the lease is lost; sooner again when it failed.
keep_lease() {
  local wait_s=$third_s
  while sleep "$wait_s" && kill -0 $$ 2>/dev/null; do
    jq --argjson leaseMs "$lease_ms" '{items: [{lease, $leaseMs}]}' "$tmp/job" >"$tmp/extend"
    (post extend /leases/extend "$third_s")
    wait_s=$third_s
    case $(status_of extend) in
      200) ;;
      207) jq -e '.results[0].error.retryable' "$tmp/extend.answer" >"$tmp/extend.again" || return ;;
      *) wait_s=$tenth_s ;;
    esac
  done
}

# work COMMAND...: leaves in $tmp/outcome what became of the job. The command leads a process group, to end all of it.
work() {
  local pid code tenths
  {
    IFS=$'\t' read -r JOB_ID JOB_ATTEMPT JOB_NAME
    cat >"$tmp/stdin"
  } < <(jq -j '([.id, .attempt, .name] | @tsv), "\n", (.data | tojson)' "$tmp/job")
  export JOB_ID JOB_ATTEMPT JOB_NAME
  set -m
  "$@" <"$tmp/stdin" >"$tmp/stdout" 2>"$tmp/stderr" &
  set +m
  pid=$!
  endable=-$pid
  [ -z "$stopping" ] || stop
  wait "$pid" 2>/dev/null
  code=$?
  if [ -n "$stopping" ]; then
    for ((tenths = kill_after_s * 10; tenths > 0; tenths--)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL -- "$endable" 2>/dev/null
  fi
  endable=''
  cat "$tmp/stderr" >&2
  [ -n "$stopping" ] || note_outcome "$code"
}

# note_outcome EXIT_CODE
note_outcome() {
  if [ "$1" -eq 0 ]; then
    jq -Rs '{outcome: "complete", result: (. as $text | try fromjson catch ($text | rtrimstr("\n")))}' "$tmp/stdout"
  else
    jq -Rs --argjson code "$1" '{outcome: "fail", unrecoverable: ($code == 100),
      error: {message: (.[-10000:] | rtrimstr("\n") | if . == "" then "exit code \($code)" else . end)}}' "$tmp/stderr"
  fi >"$tmp/outcome"
}

# Tells what became of the job, and takes the next in the same request; leaves it in $tmp/job, or nothing.
settle() {
  local next
  : >"$tmp/taken"
  while [ -z "$stopping" ] || [ $((SECONDS - stopping)) -lt "$timeout_s" ]; do
    # It does not wait for a job, since the answer also says what became of this one.
    if [ -n "$stopping" ] || [ -s "$tmp/taken" ]; then next=/dev/null; else next=$tmp/next; fi
    jq -n --slurpfile job "$tmp/job" --slurpfile outcome "$tmp/outcome" --slurpfile next "$next" \
      '{items: [$outcome[0] + {lease: $job[0].lease}]} + if $next == [] then {} else {next: $next[0]} end' \
      >"$tmp/settle"
    post settle /leases/settle "$timeout_s" &
    await $!
    case $(status_of settle) in
      200 | 207)
        jq '.jobs[0] // empty' "$tmp/settle.answer" >>"$tmp/taken"
        failures=0
        [ "$(status_of settle)" = 207 ] || break
        # With 409 LEASE_LOST another worker has the job, or will: this result is dropped.
        jq -r '.results[0] | "\(.id): \(.error.detail)"' "$tmp/settle.answer" >&2
        jq -e '.results[0].error.retryable' "$tmp/settle.answer" >/dev/null || break
        pause settle
        ;;
      000 | 408 | 425 | 429 | 5??) pause settle ;;
      *)
        echo "Refused: $(cat "$tmp/settle.answer")" >&2
        # A result that is refused, since it is too large perhaps, fails; if even that is refused, the job is let go.
        grep -q '"outcome": "complete"' "$tmp/outcome" || break
        echo 'The result was refused' >"$tmp/stderr"
        note_outcome 1
        ;;
    esac
  done
  mv "$tmp/taken" "$tmp/job"
}

echo "Working ${QUEUE:-default} of $url" >&2
: >"$tmp/job"
while [ -z "$stopping" ] || [ -s "$tmp/job" ]; do
  if [ ! -s "$tmp/job" ]; then
    take
    continue
  fi
  echo '{"outcome": "release"}' >"$tmp/outcome"
  set -m
  keep_lease &
  set +m
  keeper=$!
  [ -n "$stopping" ] || work "$@"
  settle
  kill -- "-$keeper" 2>/dev/null
  wait "$keeper" 2>/dev/null
done
exit 0
