#!/usr/bin/env python3
"""Plays the data-warehouse use case on a real Juju: two models, one table, and what goes wrong in a year.

Model `kafka` has Kafka and a producer. Model `spark` has S3, the metastore, a stand-in for Kyuubi,
and windrow. The providers in this folder stand for the real charms: they have the relations of those
charms, and their workloads are real. Spark reads the table from outside, as Kyuubi's user. After
each step the table must be a plain group-by of the topic: each row is there once and is right, and
there is no other row.

  deploy.py [CHARM]      plays it; without a name, with windrow-k8s_amd64.charm of `make pack`
    --keep               leaves cluster and models up, to look at: cluster.sh juju status -m spark
    --until STEP         ends after that step; --list prints the steps
    --from STEP          goes on with that step, on what --keep left

`juju status` of both models after each step is kept in WINDROW_RUN/deploy/status.txt. cluster.sh
says which cluster is used. It exits with 3, and says why in one line, where there is none.
"""
import argparse
import atexit
import collections
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CACHE = os.environ.get("WINDROW_PARTS") or f"{os.environ.get('HOME', '/root')}/.cache/windrow-parts"
RUN = f"{os.environ.get('WINDROW_RUN') or CACHE + '/run'}/deploy"
CLUSTER, PARTS = f"{HERE}/cluster.sh", f"{ROOT}/tests/services/services.sh"
MINE = os.environ.get("WINDROW_CONTROLLER")
IMAGE = "windrow.local/workloads:1"
MODELS = ("kafka", "spark")
TOPIC, TABLE, WINDOW_S, DELAY_S = "test-topic", "newtable", 10, 10
S3 = {"access-key": "minio", "secret-key": "minio-secret"}
# Spark's ports on this machine differ from those of the other tests' services.
SPARK = {"WINDROW_RUN": RUN, "WINDROW_PG_PORT": "25432", "WINDROW_MINIO_PORT": "29000", "WINDROW_THRIFT_PORT": "20909",
         "WINDROW_S3_KEY": S3["access-key"], "WINDROW_S3_SECRET": S3["secret-key"]}
MINIO = """
apiVersion: v1
kind: Namespace
metadata: {name: minio}
---
apiVersion: v1
kind: Pod
metadata: {name: minio, namespace: minio, labels: {app: minio}}
spec:
  containers:
  - name: minio
    image: IMAGE
    imagePullPolicy: IfNotPresent
    command: [bash, -c, "mkdir -p /tmp/data/spark && exec /opt/minio/minio server --quiet --address :9000 /tmp/data"]
    env: [{name: MINIO_ROOT_USER, value: ACCESS}, {name: MINIO_ROOT_PASSWORD, value: SECRET}, {name: MINIO_BROWSER, value: "off"}, {name: MINIO_UPDATE, value: "off"}]
---
apiVersion: v1
kind: Service
metadata: {name: minio, namespace: minio}
spec: {selector: {app: minio}, ports: [{port: 80, targetPort: 9000}]}
"""
BEGAN = time.monotonic()


class Failure(Exception):
    """What may still come true while one waits for it."""


class Wrong(Exception):
    """What no waiting mends."""


def say(text):
    seconds = int(time.monotonic() - BEGAN)
    print(f"{seconds // 60:02}:{seconds % 60:02}  {text}", flush=True)


def run(*command, stdin=None, env=None, within=300, fails=False):
    """What it printed; what it said of a failure is the error, unless it may fail: then its exit code comes too."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=within, env={**os.environ, **(env or {})})
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(command)}: no answer within {within} s") from None
    if fails:
        return done.returncode, done.stdout + done.stderr
    if done.returncode:
        raise Failure(f"{' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def juju(command, model=None, quiet=False, **kept):
    """One line as one types it; the log shows of a file its name, and nothing else of what `kept` has for names in braces."""
    if not quiet:
        shown = {name: "./" + os.path.basename(value) if os.path.isfile(value) else f"<{name}>" for name, value in kept.items()}
        say(f"$ juju {command.format(**shown) if kept else command}" + (f" -m {model}" if model else ""))
    words = [word.format(**kept) if kept else word for word in command.split()]
    if model:
        words += ["-m", model]
    return run(CLUSTER, "juju", *words)


def kubectl(command, stdin=None, quiet=True, **options):
    if not quiet:
        say(f"$ kubectl {command}")
    return run(CLUSTER, "kubectl", *command.split(), stdin=stdin, **options)


def parts(*args):
    return run(PARTS, *args, env=SPARK)


def until(what, within, look):
    """Waits for `look` to give something true; it may say why not yet by a `Failure`."""
    ends, why = time.monotonic() + within, "not yet"
    while time.monotonic() < ends:
        try:
            found = look()
            if found:
                return found
        except Failure as failure:
            why = str(failure)
        time.sleep(1)  # the next look
    raise Failure(f"{what}: not within {within} s; the last answer: {why}")


# ---- what Juju shows ----


def status(model):
    return json.loads(juju("status --format json", model, quiet=True))


def units(app, model="spark"):
    """Of each unit its level and message, by name."""
    found = status(model)["applications"].get(app, {}).get("units", {})
    return {name: (unit["workload-status"]["current"], unit["workload-status"].get("message", "")) for name, unit in sorted(found.items())}


def shows(text, app="windrow", level="active", model="spark", within=180):
    """Waits until the one unit of the application shows that; says what it shows."""

    def look():
        seen = units(app, model)
        if len(seen) != 1 or not all(s[0] == level and text in s[1] for s in seen.values()):
            raise Failure(f"{app} shows {seen}, not {level} {text!r}")
        return seen

    for name, (level, message) in until(f"{app} shows {text!r}", within, look).items():
        say(f"  {name}  {level}  {message}")


def act(action, unit="windrow/0", model="spark", quiet=False, **params):
    if not quiet:
        say(" ".join([f"$ juju run {unit} {action}", *(f"{k}={v if k == 'relation' else '<' + k + '>'}" for k, v in params.items()), "-m", model]))
    words = " ".join(f"{k}={v}" for k, v in params.items())
    answer = json.loads(juju(f"run {unit} {action} {words} --format json", model, quiet=True))
    one = next(iter(answer.values()))
    if one["status"] != "completed":
        raise Failure(f"{action}: {one}")
    return one.get("results", {})


def remove(app):
    juju(f"remove-application {app} --no-prompt", "spark")
    until("its pods are gone", 180, lambda: not kubectl(f"get pods -n spark -l app.kubernetes.io/name={app} -o name").strip())


def unrelate(endpoint, provider):
    juju(f"remove-relation windrow:{endpoint} {provider}", "spark")
    shows(f"no relation on {endpoint}", level="blocked")
    until("the relation is gone", 120, lambda: endpoint not in status("spark")["applications"]["windrow"].get("relations", {}))
    # Units of Juju 4.1-beta2 take one that is made before they have seen this for the old one, and never join it.
    time.sleep(10)


# ---- what is read from outside ----


class Forward(threading.Thread):
    """A port of this machine that is a pod's, again and again as pods come and go."""

    def __init__(self, namespace, pod, port, here):
        super().__init__(daemon=True)
        self.command = [CLUSTER, "kubectl", "port-forward", "-n", namespace, f"pod/{pod}", f"{here}:{port}"]
        self.child, self.ended = None, False
        atexit.register(self.end)
        self.start()

    def run(self):
        while not self.ended:
            self.child = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.child.wait()
            time.sleep(0.5)  # a pod that is not there yet

    def end(self):
        self.ended = True
        if self.child and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)


def open_spark():
    """Spark's Thrift server on the metastore, as Kyuubi's user."""
    if "WINDROW_PG_USER" in SPARK:
        return
    Forward("minio", "minio", 9000, SPARK["WINDROW_MINIO_PORT"])
    Forward("spark", "metastore-0", 5432, SPARK["WINDROW_PG_PORT"])
    user = act("get-metastore", "kyuubi/0")
    SPARK.update(WINDROW_PG_USER=user["username"], WINDROW_PG_PASSWORD=user["password"])
    atexit.register(parts, "thrift-down")
    parts("thrift-down")
    parts("thrift-up", "hivemetastore")


def beeline(*sql, tsv=True):
    open_spark()
    return parts("beeline", *(["-t"] if tsv else []), *sql)


def rows(table=TABLE):
    """(start s, end s, origin) -> count, as Spark reads it; a row that is there twice is an error."""
    answer = beeline(f"SELECT unix_timestamp(window.start), unix_timestamp(window.end), origin, count FROM {table}")
    found = {}
    for line in answer.splitlines()[1:]:
        fields = line.split("\t")
        if len(fields) != 4:
            raise Failure(f"Spark answers {line!r}")
        start, end, origin, count = fields
        key = (int(start), int(end), origin)
        if key in found:
            raise Wrong(f"row {key} is in {table} twice")
        found[key] = int(count)
    return found


def kafka_tool(tool, *args):
    """One of Kafka's own tools, beside the broker."""
    java = "/opt/java/bin/java -XX:TieredStopAtLevel=1 -Xmx128m -Dorg.slf4j.simpleLogger.defaultLogLevel=off -cp /opt/kafka/*".split()
    return run(CLUSTER, "kubectl", "exec", "-n", "kafka", "kafka-0", "-c", "kafka", "--", *java, f"org.apache.kafka.tools.{tool}",
               "--bootstrap-server", "127.0.0.1:19092", *args)


def group_by(width=WINDOW_S):
    """A plain group-by of the topic's log, and the newest record's time, s."""
    ends = {int(p): int(end) for _, p, end in (line.rsplit(":", 2) for line in kafka_tool("GetOffsetShell", "--topic", TOPIC).split())}
    shown = [word for what in ("timestamp", "partition", "offset") for word in ("--property", f"print.{what}=true")]
    for more in (4, 10, 20, 40):
        # The consumer ends after a number of records alone, in no order among topic partitions: with some of the next ones it has
        # all that were there, or the next round has.
        log = kafka_tool("consumer.ConsoleConsumer", "--topic", TOPIC, "--from-beginning", "--max-messages", str(sum(ends.values()) + more), *shown)
        counts, newest, read = collections.Counter(), 0, dict.fromkeys(ends, 0)
        for line in log.splitlines():
            if line.startswith("CreateTime:"):
                at, partition, offset, value = line.split("\t", 3)
                at, partition, offset = (int(field.split(":")[1]) for field in (at, partition, offset))
                start = at // 1000 // width * width
                counts[start, start + width, json.loads(value)["origin"]] += 1
                newest = max(newest, at // 1000)
                read[partition] = max(read[partition], offset + 1)
        if all(read[p] >= end for p, end in ends.items()):
            break
    else:
        raise Failure(f"Kafka's consumer reads {read} of {ends}")
    if not counts:
        raise Failure("the topic is empty")
    return counts, newest


def is_right(table=TABLE, width=WINDOW_S, within=180):
    """Waits until the table is that group-by, for all windows that are over by now."""
    counts, newest = until("the topic's log", 120, lambda: group_by(width))
    ripe = newest - DELAY_S
    want = {k: n for k, n in counts.items() if k[1] <= ripe}

    def look():
        have = {k: n for k, n in rows(table).items() if k[1] <= ripe}
        wrong = {k: (n, want.get(k)) for k, n in have.items() if want.get(k) != n}
        if wrong:
            raise Wrong(f"{table} has what the topic has not: {list(wrong.items())[:5]}")
        if len(have) < len(want):
            raise Failure(f"{len(want) - len(have)} rows of {table} are missing, such as {next(k for k in want if k not in have)}")
        return True

    until(f"the rows of {table}", within, look)
    say(f"  {table}: {len(want)} rows, the group-by of {sum(want.values())} records of the topic")


# ---- the steps ----


def pack(charm):
    """A stand-in's folder as Juju takes it."""
    packed = f"{RUN}/{charm}.charm"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in sorted(os.listdir(f"{HERE}/providers/{charm}")):
            zipped.write(f"{HERE}/providers/{charm}/{name}", name)
    return packed


def newer(charm):
    """A charm with the next build of windrow, the same with another last byte; and that build's digest."""
    built = f"{RUN}/newer.charm"
    with zipfile.ZipFile(charm) as old, zipfile.ZipFile(built, "w", zipfile.ZIP_DEFLATED) as new:
        program = old.read("windrow") + b"\0"
        digest = hashlib.sha256(program).hexdigest()
        for entry in old.infolist():
            data = {"windrow": program, "windrow.sha256": digest.encode() + b"\n"}.get(entry.filename)
            new.writestr(entry, old.read(entry) if data is None else data)
    return built, digest


def the_kafka_model(_):
    juju("add-model kafka")
    juju(f"deploy {{charm}} kafka --resource kafka-image={IMAGE} --trust", "kafka", charm=pack("kafka"))
    juju(f"deploy {{charm}} producer --resource producer-image={IMAGE} --config role=producer --config num_messages=100000", "kafka", charm=pack("producer"))
    juju("offer kafka.kafka:kafka-client")
    shows("", "kafka", model="kafka")


def the_spark_model(_):
    kubectl("apply -f -", stdin=MINIO.replace("IMAGE", IMAGE).replace("ACCESS", S3["access-key"]).replace("SECRET", S3["secret-key"]))
    address = kubectl("get service minio -n minio -o jsonpath={.spec.clusterIP}")
    juju("add-model spark")
    juju(f"deploy {{charm}} metastore --resource postgresql-image={IMAGE}", "spark", charm=pack("postgresql"))
    juju(f"deploy {{charm}} s3 --config bucket=spark --config endpoint=http://{address}:80 --config path=spark-events", "spark", charm=pack("s3"))
    juju("deploy {charm} kyuubi", "spark", charm=pack("kyuubi"))
    juju("integrate kyuubi:metastore-db metastore:database", "spark")
    shows("Primary", "metastore")
    shows("", "kyuubi")


def windrow_is_deployed(charm):
    juju(f"deploy {{charm}} windrow --resource windrow-image={IMAGE}", "spark", charm=charm)
    juju("consume admin/kafka.kafka", "spark")
    juju("integrate windrow:kafka-client kafka", "spark")
    shows("no relation on s3-credentials, metastore-db", level="blocked")
    juju("integrate windrow:s3-credentials s3", "spark")
    juju("integrate windrow:metastore-db metastore", "spark")
    shows("s3-credentials", level="waiting")


def credentials_and_hives_tables_come_late(_):
    until("the integrator's leader", 60, lambda: act("sync-s3-credentials", "s3/0", **S3))
    shows("Hive schema not there yet", level="waiting")
    say("  Kyuubi's user opens Spark: Hive's tables are its own (PostgreSQL 14)")
    beeline("CREATE TABLE IF NOT EXISTS first (a int) USING parquet")
    shows("metastore-roles=pg_read_all_data,pg_write_all_data", level="blocked")
    juju("config windrow metastore-roles=pg_read_all_data,pg_write_all_data", "spark")
    unrelate("metastore-db", "metastore")
    juju("integrate windrow:metastore-db metastore", "spark")
    shows("topic test-topic is not there yet", level="waiting")


def records_flow(_):
    juju("integrate producer kafka", "kafka")
    began = time.monotonic()
    shows("counting test-topic into default.newtable")
    until("the first row", 120, lambda: rows())
    say(f"  the first row was read {time.monotonic() - began:.0f} s after the producer was related")
    is_right()
    for line in beeline("SHOW TABLES", f"SELECT count(*) FROM {TABLE}", f"SELECT * FROM {TABLE} LIMIT 3", tsv=False).splitlines():
        say(f"  | {line}")


def every_action(_):
    for action in ("get-table-status", "list-tables", "preview-table", "show-windows", "get-lag", "list-rejects"):
        answer = {k: v for k, v in act(action).items() if k != "return-code"}
        say("  " + " ".join(json.dumps(answer).split())[:150])
    act("pause")
    shows("Paused by action", level="maintenance")
    act("resume")
    shows("counting")
    is_right()


def counting_unit(many, not_this=None):
    """The one unit that counts; all others stand by."""

    def look():
        seen = units("windrow")
        counting = [name for name, (level, text) in seen.items() if level == "active" and text.startswith("counting")]
        standing = [name for name, (level, text) in seen.items() if level == "active" and text.startswith("Standby")]
        if len(seen) != many or len(counting) != 1 or len(standing) != many - 1 or counting[0] == not_this:
            raise Failure(f"the units show {seen}")
        return counting[0]

    one = until(f"one of {many} units counts", 240, look)
    for name, (level, text) in units("windrow").items():
        say(f"  {name}  {level}  {text}")
    return one


def three_units(_):
    juju("scale-application windrow 3", "spark")
    first = counting_unit(3)
    kubectl(f"delete pod -n spark {first.replace('/', '-')}", quiet=False)
    counting_unit(3, not_this=first)
    is_right()
    juju("scale-application windrow 1", "spark")
    counting_unit(1)
    is_right()


def options(_):
    juju("config windrow commit-interval=5s log-level=debug", "spark")
    shows("counting")
    juju("config windrow window=banana", "spark")
    shows("window", level="blocked")
    is_right()
    juju("config windrow window=10s log-level=info", "spark")
    shows("counting")


def relation_of(unit, model, remote):
    """The number of the relation with units of that name, as their provider knows it."""
    relations = json.loads(juju(f"show-unit {unit} --format json", model, quiet=True))[unit]["relation-info"]
    return max(r["relation-id"] for r in relations if any(u.startswith(remote) for u in r.get("related-units", {})))


def passwords_change(_):
    """Whoever is logged in stays so; the pods that die two steps on log in with the new ones."""
    act("set-password", "kafka/0", model="kafka", relation=relation_of("kafka/0", "kafka", "remote-"))
    act("set-password", "metastore/0", relation=relation_of("metastore/0", "spark", "windrow/"))
    is_right()
    shows("counting")


def s3_by_secret(_):
    uri = juju("add-secret s3-keys access-key={a} secret-key={s}", "spark", a=S3["access-key"], s=S3["secret-key"]).strip()
    juju("grant-secret s3-keys s3", "spark")
    juju(f"config s3 credentials={uri}", "spark")
    is_right()
    shows("counting")


def end_container(namespace, pod, container):
    """Kubernetes starts it anew, in the same pod."""
    count = f"get pod -n {namespace} {pod} -o jsonpath={{.status.containerStatuses[?(@.name=='{container}')].restartCount}}"
    before = int(kubectl(count))
    say(f"$ kubectl exec -n {namespace} {pod} -c {container} -- bash -c 'kill 1'")
    run(CLUSTER, "kubectl", "exec", "-n", namespace, pod, "-c", container, "--", "bash", "-c", "kill 1", fails=True)
    until("another container", 120, lambda: int(kubectl(count)) > before)


def pod_and_container_die(_):
    kubectl("delete pod -n spark windrow-0 --grace-period=0 --force", quiet=False)
    is_right()
    # Juju 4.1-beta2 shows "agent lost" from then on, though the agent is there: the end of the old pod's connection comes late.
    kubectl("delete pod -n spark windrow-0", quiet=False)
    shows("counting")
    is_right()
    end_container("spark", "windrow-0", "windrow")
    is_right()
    shows("counting")


def kafka_is_unrelated_for_a_while(_):
    unrelate("kafka-client", "kafka")
    juju("integrate windrow:kafka-client kafka", "spark")
    shows("counting")
    is_right()


def refresh(charm):
    built, digest = newer(charm)
    juju("refresh windrow --path {charm}", "spark", charm=built)
    inside = ["exec", "-n", "spark", "windrow-0", "-c", "windrow", "--", "ls", "/opt/windrow"]
    until("the newer program alone is there", 180, lambda: run(CLUSTER, "kubectl", *inside).split() == [f"windrow-{digest[:16]}"])
    is_right()
    shows("counting")


def second_app(charm):
    began = time.monotonic()
    juju(f"deploy {{charm}} minutes --resource windrow-image={IMAGE} --config table-name=minutes --config window=5s --config metastore-roles=pg_read_all_data,pg_write_all_data", "spark", charm=charm)
    for endpoint, provider in (("kafka-client", "kafka"), ("s3-credentials", "s3"), ("metastore-db", "metastore")):
        juju(f"integrate minutes:{endpoint} {provider}", "spark")
    until("the table", 180, lambda: "minutes" in beeline("SHOW TABLES"))
    until("its first row", 120, lambda: rows("minutes"))
    say(f"  the first row was read {time.monotonic() - began:.0f} s after juju deploy, from the topic's beginning")
    is_right("minutes", 5)
    juju("config minutes table-name=newtable window=10s", "spark")
    shows("is written by windrow", "minutes", level="blocked")
    remove("minutes")
    rows("minutes")
    is_right()
    shows("counting")


def trust(_):
    juju("trust windrow --scope=cluster", "spark")
    is_right()
    juju("trust windrow --remove --scope=cluster", "spark")
    is_right()
    shows("counting")


def no_credential_is_seen(_):
    hidden = {S3["secret-key"]}
    for model in MODELS:
        for uri in json.loads(juju("list-secrets --format json", model, quiet=True) or "{}") or {}:
            shown = json.loads(juju(f"show-secret {uri} --reveal --format json", model, quiet=True))
            for secret in shown.values():
                hidden.update(v for k, v in secret.get("content", {}).get("Data", {}).items() if k in ("password", "secret-key", "uris"))
    file = kubectl("exec -n spark windrow-0 -c windrow -- cat /etc/windrow/secrets.yaml")
    if sum(secret in file for secret in hidden) < 3:
        raise Wrong("the credentials that are looked for are not those in use: the look would say nothing")
    inside = "for p in /proc/[0-9]*; do cat $p/cmdline $p/environ; done 2>/dev/null; /charm/bin/pebble plan"
    places = {
        "Juju's log": juju("debug-log --replay --no-tail --include windrow/0", "spark", quiet=True),
        "Juju's status log": juju("show-status-log windrow/0", "spark", quiet=True),
        "windrow's log": kubectl("logs -n spark windrow-0 -c windrow"),
        "the charm container's log": kubectl("logs -n spark windrow-0 -c charm"),
        "processes and plan": run(CLUSTER, "kubectl", "exec", "-n", "spark", "windrow-0", "-c", "windrow", "--", "bash", "-c", inside, fails=True)[1],
        "the actions' answers": json.dumps([act(a, quiet=True) for a in ("get-table-status", "get-lag")]),
    }
    for place, text in places.items():
        if not text.strip():
            raise Failure(f"{place} is empty: the look says nothing")
        if any(secret in text for secret in hidden):
            raise Failure(f"a credential is seen in {place}")
    say(f"  none of {len(hidden)} credentials is in {', '.join(places)}")


def windrow_goes(_):
    remove("windrow")
    until("the application is gone", 120, lambda: "windrow" not in status("spark")["applications"])
    have, (counts, _) = until("the table", 60, rows), group_by()
    wrong = [k for k in have if counts.get(k) != have[k]]
    if wrong:
        raise Wrong(f"the table that was left: {len(have)} rows, {len(wrong)} of them wrong")
    say(f"  the table stays: {len(have)} rows; of windrow nothing runs")


STEPS = (the_kafka_model, the_spark_model, windrow_is_deployed, credentials_and_hives_tables_come_late, records_flow, every_action,
         three_units, options, passwords_change, s3_by_secret, pod_and_container_die, kafka_is_unrelated_for_a_while, refresh,
         second_app, trust, no_credential_is_seen, windrow_goes)


def show_status(step):
    with open(f"{RUN}/status.txt", "a") as file:
        file.write(f"#### {step}\n")
        for model in MODELS:
            code, shown = run(CLUSTER, "juju", "status", "-m", model, fails=True)
            file.write(shown if code == 0 else f"({model}: not there)\n")


def start():
    """The cluster is up, and nothing of the user's has the names that are removed at the end."""
    done = subprocess.run([CLUSTER, "up"])
    if done.returncode:
        sys.exit(done.returncode)
    looks = [("juju", "show-model", model) for model in MODELS] + [("kubectl", "get", "namespace", "minio")]
    there = [" ".join(look) for look in looks if run(CLUSTER, *look, fails=True)[0] == 0]
    if there:
        sys.exit(f"deploy: there is one already, and it is not touched: {'; '.join(there)}")


def load_image():
    run(PARTS, "install", "kafka", "minio", "postgres", "spark", within=1800)
    places = run(PARTS, "places").split()
    run(sys.executable, f"{HERE}/image.py", f"{RUN}/workloads.tar", IMAGE, *places)
    run(CLUSTER, "import", f"{RUN}/workloads.tar")


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("charm", nargs="?", default=f"{ROOT}/windrow-k8s_amd64.charm")
    asked.add_argument("--keep", action="store_true")
    asked.add_argument("--until")
    asked.add_argument("--from", dest="first")
    asked.add_argument("--list", action="store_true")
    args = asked.parse_args()
    names = [step.__name__.replace("_", "-") for step in STEPS]
    if args.list:
        print("\n".join(names))
        return
    os.makedirs(RUN, exist_ok=True)
    open(f"{RUN}/status.txt", "w").close()
    if not args.first:
        say("the cluster")
        start()
    failed = None
    try:
        if not args.first:
            load_image()
        for name, step in list(zip(names, STEPS))[names.index(args.first or names[0]):]:
            say(f"## {name.replace('-', ' ')}")
            step(os.path.abspath(args.charm))
            show_status(name)
            if name == args.until:
                break
    except (Failure, Wrong, KeyboardInterrupt) as failure:
        failed = str(failure) or "cut off"
        say(f"FAILED: {failed}")
        show_status("failed")
        print(run(CLUSTER, "juju", "status", "-m", "spark", "--relations", fails=True)[1])
        print(run(CLUSTER, "juju", "debug-log", "-m", "spark", "--replay", "--no-tail", "--include", "windrow/0", "--limit", "60", fails=True)[1])
    finally:
        if not args.keep:
            if MINE:
                for model in MODELS:
                    run(CLUSTER, "juju", "destroy-model", model, "--no-prompt", "--destroy-storage", "--force", fails=True, within=600)
                kubectl("delete namespace minio", fails=True)
            subprocess.run([CLUSTER, "down"])
    if failed:
        sys.exit(1)
    say("the use case is played")


if __name__ == "__main__":
    main()
