#!/usr/bin/env python3
"""`python3 examples/worker_pull.py`: a worker that needs nothing but HTTP. Copy it and replace `work` with your own.

  take (long poll) → work, while leases are extended → settle finished jobs and take new ones in the same request

A job whose lease is lost goes to another worker and may run twice, so `work` should be idempotent. SIGTERM and SIGINT
stop taking: leased jobs may finish within GRACE_MS (10000), the rest are released, and the exit code is 0.
Settings: SLUICE_URL (http://127.0.0.1:3000), SLUICE_KEY (an API key with the scope `work`), QUEUE (default),
CONCURRENCY (10 threads; at most 100), LEASE_MS (30000). It needs Python 3.9 and nothing else.
"""
import hashlib
import http.client
import json
import os
import queue
import random
import signal
import socket
import sys
import threading
import time
import traceback
from urllib.parse import quote, urlsplit

SERVICE = urlsplit(os.environ.get("SLUICE_URL", "http://127.0.0.1:3000"))
KEY = os.environ.get("SLUICE_KEY", "")
QUEUE = os.environ.get("QUEUE", "default")
CONCURRENCY = int(os.environ.get("CONCURRENCY", "10"))
LEASE_MS = int(os.environ.get("LEASE_MS", "30000"))
GRACE_S = int(os.environ.get("GRACE_MS", "10000")) / 1000
WAIT_S = 20
TIMEOUT_S = 10
MAX_PAUSE_S = 10
LEASE_OPTIONS = {"leaseMs": LEASE_MS, "worker": f"{socket.gethostname()}:{os.getpid()}"}


class Job:
    """Set `progress` to report it with the next extension. `cancelled`: the result is no longer wanted, so stop."""

    def __init__(self, leased):
        self.id, self.name, self.data = leased["id"], leased["name"], leased["data"]
        self.attempt, self.attempts, self.lease = leased["attempt"], leased["attempts"], leased["lease"]
        self.progress = None
        self.cancelled = threading.Event()
        self.outcome = None

    def progress_field(self):
        return {} if self.progress is None else {"progress": self.progress}


class UnrecoverableError(Exception):
    pass


def work(job):
    """Your work. The return value is the result; an error fails the attempt, and the job is retried if it has more."""
    data = job.data if isinstance(job.data, dict) else {}
    if data.get("fail") == "permanently":
        raise UnrecoverableError("Failed permanently as requested")
    if data.get("fail"):
        raise RuntimeError("Failed as requested")
    sleep_ms = data.get("sleepMs", 0)
    for slept_ms in range(0, sleep_ms, 100):
        job.progress = round(100 * slept_ms / sleep_ms)
        if job.cancelled.wait(0.1):
            return None
    text = json.dumps(job.data, separators=(",", ":"), ensure_ascii=False).encode()
    return {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}


# Leased jobs by lease token, until they are settled; a finished job has an outcome. Guarded by `changed`.
leases = {}
changed = threading.Condition()
inbox = queue.SimpleQueue()
stopping = threading.Event()
refused = threading.Event()


class HttpError(Exception):
    def __init__(self, status, retry_after, text):
        super().__init__(f"{status} {text[:500]}")
        self.status = status
        self.retry_after_s = int(retry_after) if retry_after.isdigit() else 0


class Connection:
    """A keep-alive connection; each thread has its own."""

    def __init__(self):
        kind = http.client.HTTPSConnection if SERVICE.scheme == "https" else http.client.HTTPConnection
        self.http = kind(SERVICE.netloc)
        self.headers = {"content-type": "application/json"}
        if KEY:
            self.headers["authorization"] = f"Bearer {KEY}"

    def post(self, path, body, timeout_s):
        try:
            self.http.timeout = timeout_s
            if self.http.sock:
                self.http.sock.settimeout(timeout_s)
            self.http.request("POST", SERVICE.path.rstrip("/") + path, json.dumps(body).encode(), self.headers)
            response = self.http.getresponse()
            text = response.read().decode("utf-8", "replace")
        except Exception:
            self.http.close()  # The next request reopens it.
            raise
        if not 200 <= response.status < 300:
            raise HttpError(response.status, response.getheader("retry-after", ""), text)
        return json.loads(text or '{"jobs":[]}')

    def abort(self):
        """Called from another thread: ends the request in flight."""
        try:
            self.http.sock.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError):
            pass  # Nothing is in flight.


def take_jobs(service):
    """Takes jobs while there is capacity."""
    failures = 0
    while True:
        with changed:
            changed.wait_for(lambda: len(leases) < CONCURRENCY or stopping.is_set())
            body = {**LEASE_OPTIONS, "max": CONCURRENCY - len(leases), "wait": WAIT_S}
        if stopping.is_set():
            return
        try:
            reply = service.post(f"/queues/{quote(QUEUE, safe='')}/leases", body, WAIT_S + TIMEOUT_S)
            failures = 0
            start(reply["jobs"])
        except Exception as error:
            if stopping.is_set():
                return
            if is_refusal(error):
                refused.set()
            pause(error, failures)
            failures += 1


def start(jobs):
    with changed:
        for leased in jobs:
            job = leases[leased["lease"]] = Job(leased)
            if stopping.is_set():
                job.outcome = {"outcome": "release"}
            else:
                inbox.put(job)
        changed.notify_all()


def work_jobs():
    while True:
        job = inbox.get()
        outcome = outcome_of(job)
        with changed:
            # If the lease was lost there is nothing to settle, only capacity for another job.
            # A released job stays released.
            if job.cancelled.is_set() and not job.outcome:
                leases.pop(job.lease, None)
            job.outcome = job.outcome or outcome
            changed.notify_all()


def outcome_of(job):
    try:
        result = work(job)
        json.dumps(result, allow_nan=False)  # Fails only this job if JSON cannot express it.
        return {"outcome": "complete", "result": result}
    except BaseException as error:  # Nothing may end the thread.
        return failure_of(error)


def failure_of(error):
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    described = {"message": str(error)[:10_000] or type(error).__name__, "stack": stack[-10_000:]}
    return {"outcome": "fail", "error": described, "unrecoverable": isinstance(error, UnrecoverableError)}


def settle_jobs(service):
    """Settles finished jobs in batches; jobs that finish during a request go into the next one."""
    failures, batch_max = 0, 100
    while True:
        with changed:
            while not (finished := [job for job in leases.values() if job.outcome][:batch_max]):
                batch_max = 100
                changed.wait()
        try:
            settle_batch(service, finished)
            failures = 0
        except Exception as error:
            if not is_refusal(error):
                pause(error, failures)
                failures += 1
            elif len(finished) > 1:
                batch_max = 1  # The batch may have been too large.
            elif finished[0].outcome["outcome"] == "complete":
                finished[0].outcome = failure_of(error)
            else:
                with changed:
                    leases.pop(finished[0].lease, None)  # Its failure is refused too: drop it.


def settle_batch(service, finished):
    """Raises when some jobs have to be settled again."""
    body = {"items": [{"lease": job.lease, **job.outcome} for job in finished]}
    if not stopping.is_set():
        # Without `wait`, because the response also has the results of these jobs.
        body["next"] = {**LEASE_OPTIONS, "queue": QUEUE, "max": len(finished)}
    reply = service.post("/leases/settle", body, TIMEOUT_S)
    must_retry = False
    with changed:
        for job, result in zip(finished, reply["results"]):
            error = result.get("error")
            if error:
                log(f"{job.id}: {error['detail']}")
            if error and error["retryable"]:
                must_retry = True
            elif error and result["status"] in (400, 413, 422) and job.outcome["outcome"] == "complete":
                # A result that is refused, because it is too large for example, fails its job.
                job.outcome = failure_of(ValueError(error["detail"]))
            else:
                # After 409 LEASE_LOST another worker has the job, or will get it: this result is dropped.
                leases.pop(job.lease, None)
        start(reply["jobs"])
    if must_retry:
        raise OSError("Some jobs could not be settled yet")


def keep_leases(service):
    """Extends the leases of all jobs, also of those that wait to be settled; sooner after a failed request."""
    wait_s = LEASE_MS / 3000
    while True:
        time.sleep(wait_s)
        wait_s = LEASE_MS / 3000
        with changed:
            kept = [job for job in leases.values() if not job.cancelled.is_set()][:100]
        if not kept:
            continue
        items = [{"lease": job.lease, "leaseMs": LEASE_MS, **job.progress_field()} for job in kept]
        try:
            results = service.post("/leases/extend", {"items": items}, LEASE_MS / 3000)["results"]
            for job, result in zip(kept, results):
                if "error" in result and not result["error"]["retryable"]:
                    # A finished job may just have been settled, which ends its lease too.
                    if not job.outcome:
                        log(f"{job.id}: {result['error']['detail']}")
                    job.cancelled.set()
        except Exception as error:
            log(f"Leases could not be extended: {error!r}")
            wait_s = LEASE_MS / 10_000


def is_refusal(error):
    """Whether the same request would be refused again."""
    return isinstance(error, HttpError) and error.status < 500 and error.status not in (408, 425, 429)


def pause(error, failures):
    """Waits for Retry-After, or exponentially longer up to MAX_PAUSE_S, with jitter so that workers spread out."""
    backoff_s = min(MAX_PAUSE_S, 0.25 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)
    pause_s = getattr(error, "retry_after_s", 0) * random.uniform(1, 1.25) or backoff_s
    log(f"{error!r}; retrying in {pause_s:.1f} s")
    if stopping.is_set():
        time.sleep(min(pause_s, 0.5))  # While stopping, the grace period is short.
    else:
        stopping.wait(pause_s)


def log(text):
    print(text, file=sys.stderr, flush=True)


def main():
    signals = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    taking = Connection()
    taker = threading.Thread(target=take_jobs, args=[taking], daemon=True)
    taker.start()
    for target in (settle_jobs, keep_leases):
        threading.Thread(target=target, args=[Connection()], daemon=True).start()
    for _ in range(CONCURRENCY):
        threading.Thread(target=work_jobs, daemon=True).start()
    log(f"Working on {QUEUE} at {SERVICE.geturl()}, {CONCURRENCY} jobs at a time")
    while not signals and not refused.is_set():
        time.sleep(0.1)

    stopping.set()
    with changed:
        changed.notify_all()
    for _ in range(10):
        taking.abort()
        taker.join(0.1)
    with changed:
        changed.wait_for(lambda: not leases, GRACE_S)
        for job in leases.values():
            job.outcome = job.outcome or {"outcome": "release"}
            job.cancelled.set()
        changed.notify_all()
        changed.wait_for(lambda: not leases, 5)
    # Exits at once, even while a job ignores `cancelled`.
    sys.stdout.flush()
    os._exit(1 if refused.is_set() else 0)


if __name__ == "__main__":
    main()
