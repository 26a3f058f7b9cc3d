#!/usr/bin/env python3
"""`python3 examples/worker_pull.py`: a worker that speaks nothing but HTTP. Copy it, and put your work into `work`.

  take (long poll) → work, while leases are extended → settle what is done, taking as many more by the same request

A job whose lease was lost goes to another worker, so it may be done twice: let that do no harm. On SIGTERM and SIGINT
no more jobs are taken, those in hand may be finished within GRACE_MS (10000), the rest are released, and the exit code
is 0.
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
TERMS = {"leaseMs": LEASE_MS, "worker": f"{socket.gethostname()}:{os.getpid()}"}


class Job:
    """Set `progress` to tell how far the work is. `cancelled`: the result is not wanted any more, so stop."""

    def __init__(self, leased):
        self.id, self.name, self.data = leased["id"], leased["name"], leased["data"]
        self.attempt, self.attempts, self.lease = leased["attempt"], leased["attempts"], leased["lease"]
        self.progress = None
        self.cancelled = threading.Event()
        self.outcome = None

    def told(self):
        return {} if self.progress is None else {"progress": self.progress}


class UnrecoverableError(Exception):
    pass


def work(job):
    """Your work. What it returns is the result; what it raises fails the job: it is tried again by its attempts."""
    data = job.data if isinstance(job.data, dict) else {}
    if data.get("fail") == "for good":
        raise UnrecoverableError("It was to fail for good")
    if data.get("fail"):
        raise RuntimeError("It was to fail")
    sleep_ms = data.get("sleepMs", 0)
    for slept_ms in range(0, sleep_ms, 100):
        job.progress = round(100 * slept_ms / sleep_ms)
        if job.cancelled.wait(0.1):
            return None
    text = json.dumps(job.data, separators=(",", ":"), ensure_ascii=False).encode()
    return {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}


# Jobs in hand, by lease, until they are settled; with an outcome once they are done. Touched only under `changed`.
held = {}
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
    """Kept alive from one request to the next; each thread has its own."""

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
            self.http.close()  # The next request opens it again.
            raise
        if not 200 <= response.status < 300:
            raise HttpError(response.status, response.getheader("retry-after", ""), text)
        return json.loads(text or '{"jobs":[]}')

    def hang_up(self):
        """Called by another thread: ends the request under way."""
        try:
            self.http.sock.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError):
            pass  # There was none.


def take_jobs(service):
    """Takes jobs while there is room for any."""
    failures = 0
    while True:
        with changed:
            changed.wait_for(lambda: len(held) < CONCURRENCY or stopping.is_set())
            body = {**TERMS, "max": CONCURRENCY - len(held), "wait": WAIT_S}
        if stopping.is_set():
            return
        try:
            answer = service.post(f"/queues/{quote(QUEUE, safe='')}/leases", body, WAIT_S + TIMEOUT_S)
            failures = 0
            begin(answer["jobs"])
        except Exception as error:
            if stopping.is_set():
                return
            if is_refusal(error):
                refused.set()
            pause(error, failures)
            failures += 1


def begin(jobs):
    with changed:
        for leased in jobs:
            job = held[leased["lease"]] = Job(leased)
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
            # The lease was lost: there is nothing to say, but room for another. What was released stays so.
            if job.cancelled.is_set() and not job.outcome:
                held.pop(job.lease, None)
            job.outcome = job.outcome or outcome
            changed.notify_all()


def outcome_of(job):
    try:
        result = work(job)
        json.dumps(result, allow_nan=False)  # What JSON cannot say raises here, where it fails this job alone.
        return {"outcome": "complete", "result": result}
    except BaseException as error:  # A thread that ended would be missed.
        return failure_of(error)


def failure_of(error):
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    told = {"message": str(error)[:10_000] or type(error).__name__, "stack": stack[-10_000:]}
    return {"outcome": "fail", "error": told, "unrecoverable": isinstance(error, UnrecoverableError)}


def settle_jobs(service):
    """Settles what is done; what gets done while one request is under way goes together into the next."""
    failures, most = 0, 100
    while True:
        with changed:
            while not (done := [job for job in held.values() if job.outcome][:most]):
                most = 100
                changed.wait()
        try:
            tell(service, done)
            failures = 0
        except Exception as error:
            if not is_refusal(error):
                pause(error, failures)
                failures += 1
            elif len(done) > 1:
                most = 1  # Together they may have been too large.
            elif done[0].outcome["outcome"] == "complete":
                done[0].outcome = failure_of(error)
            else:
                with changed:
                    held.pop(done[0].lease, None)  # Not even its failure is accepted: it is let go.


def tell(service, done):
    """Raises when some have to be told again."""
    body = {"items": [{"lease": job.lease, **job.outcome} for job in done]}
    if not stopping.is_set():
        # It does not wait for jobs, since the answer also says what became of these.
        body["next"] = {**TERMS, "queue": QUEUE, "max": len(done)}
    answer = service.post("/leases/settle", body, TIMEOUT_S)
    is_left = False
    with changed:
        for job, result in zip(done, answer["results"]):
            error = result.get("error")
            # With 409 LEASE_LOST another worker has the job, or will: this result is dropped.
            if error:
                log(f"{job.id}: {error['detail']}")
            if error and error["retryable"]:
                is_left = True
            else:
                held.pop(job.lease, None)
        begin(answer["jobs"])
    if is_left:
        raise OSError("Some jobs could not be settled yet")


def keep_leases(service):
    """Extends all that is in hand, also what waits to be settled; sooner again when that failed."""
    wait_s = LEASE_MS / 3000
    while True:
        time.sleep(wait_s)
        wait_s = LEASE_MS / 3000
        with changed:
            kept = [job for job in held.values() if not job.cancelled.is_set()][:100]
        if not kept:
            continue
        items = [{"lease": job.lease, "leaseMs": LEASE_MS, **job.told()} for job in kept]
        try:
            results = service.post("/leases/extend", {"items": items}, LEASE_MS / 3000)["results"]
            for job, result in zip(kept, results):
                if "error" in result and not result["error"]["retryable"]:
                    # Of one that is done it may only mean that it has just been settled.
                    if not job.outcome:
                        log(f"{job.id}: {result['error']['detail']}")
                    job.cancelled.set()
        except Exception as error:
            log(f"Leases could not be extended: {error!r}")
            wait_s = LEASE_MS / 10_000


def is_refusal(error):
    """The same request would be refused again."""
    return isinstance(error, HttpError) and error.status < 500 and error.status not in (408, 425, 429)


def pause(error, failures):
    """As long as the service says; else longer each time, to MAX_PAUSE_S. Never all workers until the same moment."""
    backoff_s = min(MAX_PAUSE_S, 0.25 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)
    pause_s = getattr(error, "retry_after_s", 0) * random.uniform(1, 1.25) or backoff_s
    log(f"{error!r}; again in {pause_s:.1f} s")
    if stopping.is_set():
        time.sleep(min(pause_s, 0.5))  # At the end there is no time to lose.
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
    log(f"Working {QUEUE} of {SERVICE.geturl()}, {CONCURRENCY} jobs at a time")
    while not signals and not refused.is_set():
        time.sleep(0.1)

    stopping.set()
    with changed:
        changed.notify_all()
    for _ in range(10):
        taking.hang_up()
        taker.join(0.1)
    with changed:
        changed.wait_for(lambda: not held, GRACE_S)
        for job in held.values():
            job.outcome = job.outcome or {"outcome": "release"}
            job.cancelled.set()
        changed.notify_all()
        changed.wait_for(lambda: not held, 5)
    # At once, also while work goes on that does not heed `cancelled`.
    sys.stdout.flush()
    os._exit(1 if refused.is_set() else 0)


if __name__ == "__main__":
    main()
