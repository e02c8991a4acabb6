#!/usr/bin/env python3
"""What the scenarios do, and wait for, between two hooks.

It runs as a hook command does: `$step VERB ARGUMENT...` in a scenario's `run:`. Names, ports and
credentials come from world.json in the run's folder, which play_scenarios.py writes. What one step
leaves for the next is in step.json. A step that waits has a deadline; one that fails prints what it
saw and exits with 1, which ends the scenario. No credential is in the arguments or the environment,
because play_scenarios.py looks for them there.
"""
import argparse
import base64
import datetime
import glob
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

FOLDER = os.environ["BED_FOLDER"]
CONTAINER = "windrow"
PEBBLE = f"/charm/containers/{CONTAINER}/pebble"
SECRETS = "/etc/windrow/secrets.yaml"
HTTP = "http://127.0.0.1:8080"
OTHER = "http://127.0.0.1:18080"
WINDOW_MS, DELAY_MS, STEP_MS = 10_000, 10_000, 500
UID = 584792  # the workload's uid and gid

with open(f"{FOLDER}/world.json", encoding="utf-8") as f:
    WORLD = json.load(f)


def remembered():
    try:
        with open(f"{FOLDER}/step.json", encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return {}


def remember(**what):
    known = remembered() | what
    with open(f"{FOLDER}/step.json", "w", encoding="utf-8") as f:
        json.dump(known, f)


def fail(text):
    sys.exit(f"step: {text}")


def until(what, seconds, look):
    """Waits until look() returns something true.

    At the deadline, the message has what look() returned or raised last.
    """
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            found, last = look()
            if found:
                return last
        except OSError as error:
            last = error
        if time.monotonic() > end:
            fail(f"not within {seconds} s: {what}; last: {last}")
        time.sleep(0.2)


def parts(*args, stdin=""):
    """Runs a verb of services.sh, in the mount namespace that the services were started in."""
    command = ["nsenter", f"--mount=/proc/{WORLD['pid']}/ns/mnt", WORLD["parts"], *args]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        fail(f"services.sh {' '.join(args)}: {done.stderr or done.stdout}")
    return done.stdout


class Unix(http.client.HTTPConnection):
    """Asks Pebble's API over its socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(f"{PEBBLE}.socket")


def pebble(method, path, body=None):
    c = Unix("pebble")
    c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    answer = c.getresponse()
    text = answer.read().decode()
    # Each line of a log is JSON.
    return answer.status, json.loads(text)["result"] if answer.headers.get_content_type() == "application/json" else text


def asked(path, server=HTTP):
    """A question to windrow, with the token that its secrets file has, if any."""
    token = None
    if os.path.exists(SECRETS):
        with open(SECRETS, encoding="utf-8") as f:
            token = re.search(r"^api-token: *[\"']?([^\"'\n]+)", f.read(), re.MULTILINE)
    headers = {"Authorization": f"Bearer {token[1]}"} if token else {}
    return urllib.request.Request(server + path, headers=headers)


def get(path, server=HTTP):
    with urllib.request.urlopen(asked(path, server), timeout=5) as answer:
        return json.load(answer)


def tool(*args):
    """Runs a hook command."""
    return json.loads(subprocess.run(args, check=True, capture_output=True, text=True).stdout)


def workload():
    """Finds the service's process among those that this container's Pebble started."""
    with open(f"{FOLDER}/pebble.pid", encoding="utf-8") as f:
        found = below(int(f.read()))
    return [p for p in found if " run " in cmdline(p) and "/opt/windrow/" in cmdline(p)]


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
            return f.read().replace("\0", " ") + " "
    except OSError:
        return ""


def below(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path, encoding="utf-8") as f:
                for child in map(int, f.read().split()):
                    found += [child, *below(child)]
        except OSError:
            pass
    return found


## The world outside: the providers' side and the producer


def produce(args):
    """Produces the use case's records.

    There are as many origins as topic partitions, so that all of these reach the same time.
    """
    known = remembered()
    n = known.get("partitions", WORLD["partitions"])
    # They lie in the past, and go on where the last ones ended.
    start = known.get("next-ms", (int(time.time()) - 7200) // 10 * 10_000)
    parts("kafka", "--plain", "produce", WORLD["topic"], "--generate", str(args.ticks * n), "--origins", str(n),
          "--spread", str(n), "--start-ms", str(start), "--step-ms", str(STEP_MS), "--seed", str(start))
    remember(**{"next-ms": start + args.ticks * STEP_MS})


def trickle(args):
    """Produces records at the use case's rate: ten a second, each at its own time."""
    n = remembered().get("partitions", WORLD["partitions"])
    remember(**{"next-ms": int(time.time()) // 10 * 10_000})
    for _ in range(args.seconds):
        time.sleep(1)  # a sleep is right here: the rate itself is tested
        args.ticks = max(1, 10 // n)
        start = int(time.time() * 1000)
        parts("kafka", "--plain", "produce", WORLD["topic"], "--generate", str(args.ticks * n), "--origins", str(n),
              "--spread", str(n), "--start-ms", str(start), "--step-ms", "100", "--seed", str(start))
        remember(**{"next-ms": (int(time.time()) // 10 + 1) * 10_000})


def expected():
    """Returns a plain group-by of the topic: the rows of windows that the least watermark has passed."""
    counts, newest = {}, {}
    for line in parts("kafka", "--plain", "consume", WORLD["topic"]).splitlines():
        record = json.loads(line)
        start = record["ts"] // WINDOW_MS * WINDOW_MS
        key = (start, json.loads(record["v"])["origin"])
        counts[key] = counts.get(key, 0) + 1
        newest[record["p"]] = max(newest.get(record["p"], 0), record["ts"])
    closed = min(newest.values(), default=0) - DELAY_MS
    return {k: n for k, n in counts.items() if k[0] + WINDOW_MS <= closed}


def instant(text):
    return round(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def rows(args):
    """Waits until windrow's table has exactly the rows of that group-by."""
    want = expected()
    if len(want) < args.least:
        fail(f"the topic has only {len(want)} rows to come")

    def look():
        answer = get("/v1/tables/newtable/rows?limit=1000")
        have = {}
        for row in answer["rows"]:
            key = (instant(row["window"]["start"]), row["origin"])
            have[key] = have.get(key, 0) + row["count"]
        wrong = [k for k in have if want.get(k) != have[k]]
        if wrong:
            fail(f"the table has what the topic has not: {[(k, have[k], want.get(k)) for k in wrong[:5]]}")
        return have == want, f"{len(have)} of {len(want)} rows; {reason()}"

    until("the rows of the topic", args.within, look)
    print(len(want), "rows")


def reason():
    try:
        s = get("/v1/status")
        return f"{s['state']} {s.get('cause', '')} {s['reason']}".strip()
    except OSError as error:
        return f"no status: {error}"


def partitions(args):
    """Adds topic partitions, and waits until windrow has seen them.

    A record that is produced in one of them before that would be late.
    """
    parts("kafka", "--plain", "partitions", WORLD["topic"], str(args.count))
    until("a lane for each", 30, lambda: (len(get("/v1/status")["lanes"]) == args.count, reason()))
    remember(partitions=args.count)


def kafka(args):
    """Stops or starts the broker."""
    parts(args.what, "kafka")


def kafka_user(args):
    """Makes a relation's user, with the rights that the charm gives a consumer.

    Credentials are given by their names in world.json.
    """
    user = WORLD["names"][args.user]
    parts("kafka", "--plain", "user", user, stdin=WORLD["secrets"][args.password] + "\n")
    parts("kafka", "--plain", "allow", user, "--read", WORLD["topic"], "--group", WORLD["names"][args.prefix])


def kafka_gone(args):
    """Removes user and rights, as relation-broken does on the provider's side."""
    user = WORLD["names"][args.user]
    parts("kafka", "--plain", "delete-user", user)
    parts("kafka", "--plain", "revoke", user)


def kafka_rotate(args):
    """Changes the password and ends all connections, as a rolling restart of the brokers does."""
    parts("kafka", "--plain", "user", WORLD["names"][args.user], stdin=WORLD["secrets"][args.password] + "\n")
    parts("down", "kafka")
    parts("up", "kafka")
    remember(mark=time.time())


def within(args):
    """Waits until windrow counts again, within so many seconds of the mark."""
    until("counting again", args.seconds, counting)
    took = time.time() - remembered()["mark"]
    if took > args.seconds:
        fail(f"back after {took:.1f} s")
    print(f"back after {took:.1f} s")


def counting():
    s = get("/v1/status")
    return s["state"] == "counting" and s["lag"] == 0, f"{s['state']} {s.get('cause', '')} {s['reason']} lag {s['lag']}"


## The unit and its container


def status(args):
    """Checks the unit's status in Juju, and words in its message."""
    s = tool("status-get", "--format=json", "--include-data")
    if s["status"] != args.status or not all(w in s["message"] for w in args.words):
        fail(f"the status is {s['status']} \"{s['message']}\"; wanted {args.status} {args.words}; windrow: {reason()}")
    print(s["status"], s["message"])


def request(args):
    """Checks what the charm asked for in its application's databag."""
    data = tool("relation-get", "-r", args.relation, "--format=json", "-", os.environ["JUJU_UNIT_NAME"].split("/")[0], "--app")
    for pair in args.pairs:
        key, value = pair.split("=", 1)
        if data.get(key) != value:
            fail(f"{key} is {data.get(key)!r}, wanted {value!r}; all: {data}")
    print(data)


def state(args):
    """Waits for what windrow says about itself."""
    def look():
        s = get("/v1/status")
        ok = s["state"] == args.state and (not args.cause or s.get("cause") == args.cause)
        return ok, f"{s['state']} {s.get('cause', '')} {s['reason']}"

    print(until(f"{args.state} {args.cause or ''}", args.within, look))


def notice(args):
    """Waits for a notice that Juju's agent would see.

    That is one of the agent's own uid, or a public one, newer than the last one waited for.
    """
    def look():
        _, found = pebble("GET", "/v1/notices?types=custom&keys=windrow.dev/state")
        mine = [n for n in found or [] if n.get("user-id") in (None, os.geteuid())]
        data = mine[0].get("last-data", {}) if mine else {}
        key = [mine[0]["id"], mine[0]["last-repeated"]] if mine else None
        ok = key and key != remembered().get("notice") and data.get("state") == args.state and (not args.cause or data.get("cause") == args.cause)
        if ok:
            remember(notice=key)
        return ok, data

    print(until(f"a notice of {args.state} {args.cause or ''}", args.within, look))


def service(args):
    """Waits for the service's state in Pebble."""
    def look():
        _, found = pebble("GET", f"/v1/services?names={CONTAINER}")
        current = found[0]["current"] if found else "none"
        return current == args.current, current

    until(f"service {args.current}", 15, look)


def stop_service(_):
    """Stops the service, as somebody does who runs `pebble stop`."""
    _, answer = pebble("POST", "/v1/services", {"action": "stop", "services": [CONTAINER]})
    del answer
    service(argparse.Namespace(current="inactive"))
    with open(f"{FOLDER}/pebble.pid", encoding="utf-8") as f:
        remember(pebble=int(f.read()))


def standing(args):
    """Checks for so many seconds that Kubernetes would not restart the container.

    Its probes succeed, and Pebble stays the same process.
    """
    end = time.monotonic() + args.seconds
    seen = set()
    while time.monotonic() < end:
        for level in ("alive", "ready"):
            code, _ = pebble("GET", f"/v1/health?level={level}")
            if code != 200:
                fail(f"the probe {level} answers {code}: Kubernetes would restart the container")
        _, checks = pebble("GET", "/v1/checks")
        seen |= {f"{c['name']} {c['status']}" for c in checks}
        time.sleep(1)
    if not os.path.exists(f"/proc/{remembered()['pebble']}"):
        fail("Pebble is gone")
    print("checks were", sorted(seen))


def new_container(_):
    """Restarts the container in the same pod, as Kubernetes does.

    Its processes end, its disk is empty, and a new Pebble starts in it.
    """
    with open(f"{FOLDER}/pebble.pid", encoding="utf-8") as f:
        old = int(f.read())
    for pid in [old, *below(old)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    until("the old container's end", 10, lambda: (not os.path.exists(f"/proc/{old}") or " Z " in open(f"/proc/{old}/stat").read(), old))
    for path in glob.glob("/etc/windrow/*") + glob.glob("/opt/windrow/*"):
        os.remove(path)
    # Pebble's state, with its notices, lies in the pod and stays. Layers that were added do not.
    for path in glob.glob(f"{PEBBLE}/layers/*"):
        os.remove(path)
    if os.path.exists(f"{PEBBLE}.socket"):
        os.remove(f"{PEBBLE}.socket")
    # This is the command line that Juju gives it.
    env = {"PATH": os.environ["PATH"], "HOME": "/root", "PEBBLE": PEBBLE, "PEBBLE_SOCKET": f"{PEBBLE}.socket"}
    with open("/charm/pebble.log", "ab") as log:
        subprocess.Popen([WORLD["pebble"], "run", "--create-dirs", "--hold", "--verbose"], env=env, stdin=subprocess.DEVNULL,
                         stdout=log, stderr=log, start_new_session=True)
    until("Pebble", 10, lambda: (pebble("GET", "/v1/system-info")[0] == 200, None))


def upgrade(args):
    """Changes the binary in the charm's folder, as a refresh does.

    It still runs, because nobody reads what follows the end of an ELF file.
    """
    with open(f"{FOLDER}/charm/windrow", "ab") as f:
        f.write(args.mark.encode())
    digest = subprocess.run(["sha256sum", f"{FOLDER}/charm/windrow"], check=True, capture_output=True, text=True).stdout[:64]
    with open(f"{FOLDER}/charm/windrow.sha256", "w", encoding="utf-8") as f:
        f.write(digest + "\n")


def binary(_):
    """Checks that the charm's own binary runs, alone in its folder, as a user without a name."""
    with open(f"{FOLDER}/charm/windrow.sha256", encoding="utf-8") as f:
        path = f"/opt/windrow/windrow-{f.read()[:16]}"

    def look():
        running = [cmdline(p).split()[0] for p in workload()]
        files = glob.glob("/opt/windrow/*")
        return running == [path] and files == [path], f"runs {running}, files {files}"

    until(f"{path} runs", 20, look)
    if os.stat(f"/proc/{workload()[0]}").st_uid != UID:
        fail("it does not run as its own user")


def has_secret(args):
    """Checks whether a key is in the secrets file. The file itself may be gone."""
    found = False
    if os.path.exists(SECRETS):
        with open(SECRETS, encoding="utf-8") as f:
            found = re.search(rf'"?{args.key}"?:\s*[^\s,}}]', f.read()) is not None
    if found != (args.there == "yes"):
        fail(f"{args.key} is {'' if found else 'not '}in the secrets file")


def replans(args):
    """Checks how often Pebble was told to replan or restart since the last such check."""
    _, changes = pebble("GET", "/v1/changes?select=all")
    ids = sorted(int(c["id"]) for c in changes if c["kind"] in ("replan", "start", "stop", "restart", "autostart"))
    new = [i for i in ids if i > remembered().get("change", 0)]
    remember(change=max(ids, default=0))
    if args.none and new:
        fail(f"Pebble was told to: {[c['summary'] for c in changes if int(c['id']) in new]}")


def other(args):
    """Starts another windrow on the same table, under the name of another application or unit."""
    if args.instance == "stop":
        pid = remembered()["other"]
        os.kill(pid, signal.SIGTERM)
        until("the other's end", 30, lambda: (not os.path.exists(f"/proc/{pid}") or " Z " in open(f"/proc/{pid}/stat").read(), pid))
        return
    with open("/etc/windrow/windrow.yaml", encoding="utf-8") as f:
        text = f.read()
    config = f"{FOLDER}/other.yaml"
    for key, value in (("instance", args.instance), ("http", "127.0.0.1:18080")):
        text, n = re.subn(rf'(?m)^("?{key}"?:\s*).*?(,?)$', rf'\g<1>"{value}"\g<2>', text)
        if n != 1:
            fail(f"no {key} in windrow.yaml")
    with open(config, "w", encoding="utf-8") as f:
        f.write(text)
    binary = glob.glob("/opt/windrow/windrow-*")[0]
    with open(f"{FOLDER}/other.log", "ab") as log:
        p = subprocess.Popen([binary, "run", "--config", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    remember(other=p.pid)
    until("the other counts", 40, lambda: (get("/v1/status", OTHER)["state"] == "counting", get("/v1/status", OTHER)["reason"]))


def account(args):
    """Gives the pod a service account that may list namespaces, or one that may not."""
    shutil.copy(WORLD["kube"][f"TOKEN_{args.rights.upper()}"], "/var/run/secrets/kubernetes.io/serviceaccount/token")


def api_calls(args):
    """Checks how often Kubernetes was asked for namespaces since the last check, by its own count."""
    with open(WORLD["kube"]["CA"].replace("ca.crt", "tokens.csv"), encoding="utf-8") as f:
        admin = f.readline().split(",")[0]
    request = urllib.request.Request(WORLD["kube"]["API"] + "/metrics", headers={"Authorization": f"Bearer {admin}"})
    with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(cafile=WORLD["kube"]["CA"])) as answer:
        text = answer.read().decode()
    # The server's own requests have another verb, WATCH.
    counts = re.findall(r'^apiserver_request_total\{(?=.*resource="namespaces")(?=.*verb="LIST").*\} (\S+)$', text, re.M)
    total = int(sum(map(float, counts)))
    new = total - remembered().get("api", 0)
    remember(api=total)
    if args.wanted is not None and new != args.wanted:
        fail(f"{new} calls of Kubernetes' API, wanted {args.wanted}")
    print(new, "calls")


def leaks(_):
    """Checks that credentials are only in the secrets file, which only its user may read."""
    seen = {}
    for path in ("/v1/plan?format=yaml", "/v1/changes?select=all", "/v1/notices?users=all", "/v1/logs?n=10000", "/v1/checks"):
        seen[f"Pebble's {path}"] = json.dumps(pebble("GET", path)[1])
    for path in ("/", "/metrics", "/v1/status", "/v1/tables"):
        try:
            with urllib.request.urlopen(asked(path), timeout=5) as answer:
                seen[f"windrow's {path}"] = answer.read().decode()
        except OSError:
            pass  # not every scenario ends with a running one
    for pid in [*workload(), remembered().get("pebble", 0)]:
        for name in ("cmdline", "environ"):
            if os.path.exists(f"/proc/{pid}/{name}"):
                with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as f:
                    seen[f"{name} of {cmdline(pid)}"] = f.read()
    for root in (PEBBLE, "/etc/windrow", "/charm/pebble.log", f"{FOLDER}/charm"):
        for path in [root, *glob.glob(f"{root}/**", recursive=True)]:
            if os.path.isfile(path) and path != SECRETS and os.path.basename(path) not in ("windrow", "dispatch"):
                with open(path, encoding="utf-8", errors="replace") as f:
                    seen[path] = f.read()
    found = [f"{name} in {where}" for where, text in seen.items() for name, secret in WORLD["secrets"].items()
             if secret in text or base64.b64encode(secret.encode()).decode() in text]
    if found:
        fail(f"credentials lie open: {found}")
    held = os.stat(SECRETS)
    if (held.st_mode & 0o777, held.st_uid, held.st_gid) != (0o600, UID, UID):
        fail(f"the secrets file: mode {held.st_mode & 0o777:o}, {held.st_uid}:{held.st_gid}")
    # The check `notify` runs as root: windrow's user must not be able to change what that reads.
    for path in ("/etc/windrow", "/etc/windrow/windrow.yaml", "/opt/windrow", *glob.glob("/opt/windrow/*")):
        held = os.stat(path)
        if (held.st_mode & 0o022, held.st_uid, held.st_gid) != (0, 0, 0):
            fail(f"{path}: mode {held.st_mode & 0o777:o}, {held.st_uid}:{held.st_gid}")
    with open(SECRETS, encoding="utf-8") as f:
        text = f.read()
    inside = [name for name, secret in WORLD["secrets"].items() if secret in text]
    print(f"{len(seen)} places without credentials; the secrets file has {inside}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = p.add_subparsers(required=True)

    def verb(f, *arguments):
        v = verbs.add_parser(f.__name__.replace("_", "-"), help=f.__doc__)
        v.set_defaults(run=f)
        for name, options in arguments:
            v.add_argument(name, **options)

    number, text = {"type": int}, {}
    patient = ("--within", {"type": int, "default": 60})
    verb(produce, ("ticks", number))
    verb(trickle, ("seconds", number))
    verb(rows, ("least", number), ("--within", {"type": int, "default": 90}))
    verb(partitions, ("count", number))
    verb(kafka, ("what", {"choices": ["up", "down"]}))
    verb(kafka_user, ("user", text), ("password", text), ("prefix", text))
    verb(kafka_gone, ("user", text))
    verb(kafka_rotate, ("user", text), ("password", text))
    verb(within, ("seconds", number))
    verb(status, ("status", text), ("words", {"nargs": "*"}))
    verb(request, ("relation", text), ("pairs", {"nargs": "+"}))
    verb(state, ("state", text), ("cause", {"nargs": "?"}), patient)
    verb(notice, ("state", text), ("cause", {"nargs": "?"}), patient)
    verb(service, ("current", text))
    verb(stop_service)
    verb(standing, ("seconds", number))
    verb(new_container)
    verb(upgrade, ("mark", text))
    verb(binary)
    verb(has_secret, ("key", text), ("there", {"choices": ["yes", "no"]}))
    verb(replans, ("--none", {"action": "store_true"}))
    verb(other, ("instance", text))
    verb(account, ("rights", {"choices": ["allowed", "denied"]}))
    verb(api_calls, ("wanted", {"type": int, "nargs": "?"}))
    verb(leaks)
    args = p.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
