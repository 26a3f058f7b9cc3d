#!/usr/bin/env bash
# `examples/worker-pull.sh COMMAND [ARGUMENT...]`: a worker that needs only bash, curl and jq.
# It works one job at a time. COMMAND gets the data as JSON on stdin, and JOB_ID, JOB_NAME and JOB_ATTEMPT as variables.
# Its stdout is the result: JSON if it is one JSON value, otherwise text. Exit code 0 completes the job, 100 fails it
# permanently, and any other code fails the attempt, so that the job is retried if it has more; stderr is the reason.
# The lease is extended while COMMAND runs. A job whose lease is lost goes to another worker and may run twice, so the
# command should be idempotent. SIGTERM and SIGINT end the command, release its job and exit with 0.
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
# In a file, because command lines are visible to every user of the machine.
echo "${SLUICE_KEY:+authorization: Bearer $SLUICE_KEY}" >"$tmp/key"
jq -n --arg queue "${QUEUE:-default}" --argjson leaseMs "$lease_ms" --arg worker "$HOSTNAME:$$" \
  '{$queue, max: 1, $leaseMs, $worker}' >"$tmp/next" || exit 1
jq --argjson wait "$wait_s" 'del(.queue) + {$wait}' "$tmp/next" >"$tmp/take"
leases=/queues/$(jq -r '.queue | @uri' "$tmp/next")/leases

stopping='' # since when, in seconds
endable=''  # the child that a signal ends; with a minus, its process group
failures=0

stop() {
  stopping=${stopping:-$SECONDS}
  [ -z "$endable" ] || kill -- "$endable" 2>/dev/null
}
trap stop TERM INT

# await PID: returns its exit code. A signal interrupts `wait`, so it is called again.
await() {
  local code
  while :; do
    wait "$1" 2>/dev/null
    code=$?
    kill -0 "$1" 2>/dev/null || return "$code"
  done
}

# await_endable PID: the same, but a signal ends the child, even one that arrived just before.
await_endable() {
  endable=$1
  [ -z "$stopping" ] || stop
  await "$1"
  endable=''
}

# post NAME PATH TIMEOUT_S: sends $tmp/NAME and writes $tmp/NAME.reply, .head and .status.
# It replaces itself with curl, so that a signal reaches curl: call it with & or in ( ).
post() {
  rm -f "$tmp/$1."*
  exec curl --silent --show-error --max-time "$3" --header 'content-type: application/json' --header "@$tmp/key" \
    --data-binary "@$tmp/$1" --dump-header "$tmp/$1.head" --output "$tmp/$1.reply" --write-out '%{http_code}' \
    "$url$2" >"$tmp/$1.status"
}

# status_of NAME: the HTTP status, 000 without a response.
status_of() {
  local status=''
  [ ! -f "$tmp/$1.status" ] || read -r status <"$tmp/$1.status"
  echo "${status:-000}"
}

# pause NAME: waits for Retry-After, or exponentially longer, with jitter so that workers spread out.
pause() {
  local seconds
  touch "$tmp/$1.head"
  seconds=$(awk -v failures="$failures" -v longest="$max_pause_s" -v seed="$RANDOM" '
    tolower($1) == "retry-after:" { wanted = $2 + 0 }
    END {
      srand(seed)
      backoff = 0.25 * 2 ^ failures
      print (wanted ? wanted * (1 + rand() / 4) : (backoff < longest ? backoff : longest) * (0.5 + rand() / 2))
    }' "$tmp/$1.head")
  failures=$((failures < 10 ? failures + 1 : 10))
  # While stopping, the grace period is short.
  [ -z "$stopping" ] || seconds=0.5
  echo "$1: status $(status_of "$1"), retrying in $seconds s" >&2
  sleep "$seconds" &
  if [ -z "$stopping" ]; then await_endable $!; else await $!; fi
}

# take: writes the job to $tmp/job, if there is one.
take() {
  post take "$leases" $((wait_s + timeout_s)) &
  await_endable $!
  case $(status_of take) in
    200) jq '.jobs[0]' "$tmp/take.reply" >"$tmp/job" ;;
    204) ;;
    000 | 408 | 425 | 429 | 5??)
      [ -n "$stopping" ] || pause take
      return
      ;;
    *)
      echo "The service refused the request: $(cat "$tmp/take.reply")" >&2
      exit 1
      ;;
  esac
  failures=0
}

# keep_lease: runs in the background until it is killed, the worker ends or the lease is lost. After a failed request it
# tries again sooner.
keep_lease() {
  local wait_s=$third_s
  while sleep "$wait_s" && kill -0 $$ 2>/dev/null; do
    jq --argjson leaseMs "$lease_ms" '{items: [{lease, $leaseMs}]}' "$tmp/job" >"$tmp/extend"
    (post extend /leases/extend "$third_s")
    wait_s=$third_s
    case $(status_of extend) in
      200) ;;
      207) jq -e '.results[0].error.retryable' "$tmp/extend.reply" >"$tmp/extend.again" || return ;;
      *) wait_s=$tenth_s ;;
    esac
  done
}

# work COMMAND...: writes the outcome of the job to $tmp/outcome. The command leads a process group, which a signal ends.
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
  [ -n "$stopping" ] || write_outcome "$code"
}

# write_outcome EXIT_CODE: turns the exit code, $tmp/stdout and $tmp/stderr into $tmp/outcome.
write_outcome() {
  if [ "$1" -eq 0 ]; then
    jq -Rs '{outcome: "complete", result: (. as $text | try fromjson catch ($text | rtrimstr("\n")))}' "$tmp/stdout"
  else
    jq -Rs --argjson code "$1" '{outcome: "fail", unrecoverable: ($code == 100),
      error: {message: (.[-10000:] | rtrimstr("\n") | if . == "" then "exit code \($code)" else . end)}}' "$tmp/stderr"
  fi >"$tmp/outcome"
}

# fail_refused: a result that is refused (it may be too large) fails the job. False for a failure that is refused: it is dropped.
fail_refused() {
  grep -q '"outcome": "complete"' "$tmp/outcome" || return 1
  echo 'The result was refused' >"$tmp/stderr"
  write_outcome 1
}

# settle: settles the job and takes the next one in the same request; writes it to $tmp/job, or empties that file.
settle() {
  local next
  : >"$tmp/taken"
  while [ -z "$stopping" ] || [ $((SECONDS - stopping)) -lt "$timeout_s" ]; do
    # Without `wait`, because the response also has the result of this job.
    if [ -n "$stopping" ] || [ -s "$tmp/taken" ]; then next=/dev/null; else next=$tmp/next; fi
    jq -n --slurpfile job "$tmp/job" --slurpfile outcome "$tmp/outcome" --slurpfile next "$next" \
      '{items: [$outcome[0] + {lease: $job[0].lease}]} + if $next == [] then {} else {next: $next[0]} end' \
      >"$tmp/settle"
    post settle /leases/settle "$timeout_s" &
    await $!
    case $(status_of settle) in
      200 | 207)
        jq '.jobs[0] // empty' "$tmp/settle.reply" >>"$tmp/taken"
        failures=0
        [ "$(status_of settle)" = 207 ] || break
        jq -r '.results[0] | "\(.id // "The job"): \(.error.detail)"' "$tmp/settle.reply" >&2
        if jq -e '.results[0].error.retryable' "$tmp/settle.reply" >/dev/null; then
          pause settle
        # After 409 LEASE_LOST another worker has the job, or will get it: this result is dropped.
        elif jq -e '.results[0].status as $status | [400, 413, 422] | index($status)' "$tmp/settle.reply" >/dev/null; then
          fail_refused || break
        else
          break
        fi
        ;;
      000 | 408 | 425 | 429 | 5??) pause settle ;;
      *)
        echo "Refused: $(cat "$tmp/settle.reply")" >&2
        fail_refused || break
        ;;
    esac
  done
  mv "$tmp/taken" "$tmp/job"
}

echo "Working on ${QUEUE:-default} at $url" >&2
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
