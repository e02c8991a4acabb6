#!/usr/bin/env python3
"""Topics, users, rights and records of the test's Kafka, about a second a call; Kafka's own tools start a JVM each.

It reads the WINDROW_TEST_KAFKA* variables that `services.sh env` prints, and logs in as the super user.
"""
import argparse
import base64
import json
import os
import random
import signal
import sys
import time

from confluent_kafka import (
    Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient, NewPartitions, NewTopic, OffsetSpec,
    ResourcePatternType, ResourceType, ScramCredentialInfo, ScramMechanism, UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

WAIT = 30
ADMINS = []
MECHANISMS = {"SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512, "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256}


def told_of(error):
    """Without this a refused log-in is tried for ever."""
    if error.code() == KafkaError._AUTHENTICATION:
        print(f"cannot log in: {error.str()}", file=sys.stderr)
        os._exit(1)


def client(args):
    env = os.environ
    plain = {"bootstrap.servers": env.get("WINDROW_TEST_KAFKA_PLAIN", "127.0.0.1:19095"), "log_level": 0, "error_cb": told_of}
    if args.plain:
        return plain
    return plain | {
        "bootstrap.servers": env.get("WINDROW_TEST_KAFKA", "127.0.0.1:19092"),
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": env["WINDROW_TEST_KAFKA_USER"],
        "sasl.password": env["WINDROW_TEST_KAFKA_PASSWORD"],
    }


def admin(args):
    # Kept: a client that is collected takes its unfinished answers with it.
    ADMINS.append(AdminClient(client(args)))
    return ADMINS[-1]


def done(futures):
    """Waits for all; the first that failed is raised."""
    for future in futures.values():
        future.result(WAIT)


def until(what, condition):
    """The broker answers before every thread of it has heard: what a test relies on is waited for."""
    end = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"cannot see {what} within {WAIT} s")
        time.sleep(0.05)


def partitions_of(a, topic):
    found = a.list_topics(topic=topic, timeout=WAIT).topics.get(topic)
    ready = found is not None and found.error is None and all(p.leader >= 0 and p.error is None for p in found.partitions.values())
    return sorted(found.partitions) if ready else []


def ready(args):
    done({"cluster": admin(args).describe_cluster(request_timeout=5)})


def topics(args):
    for name, topic in sorted(admin(args).list_topics(timeout=WAIT).topics.items()):
        print(name, len(topic.partitions))


def topic(args):
    a = admin(args)
    config = dict(pair.split("=", 1) for pair in args.config)
    done(a.create_topics([NewTopic(args.name, args.partitions, 1, config=config)], operation_timeout=WAIT))
    until(f'topic "{args.name}"', lambda: len(partitions_of(a, args.name)) == args.partitions)


def delete_topic(args):
    a = admin(args)
    done(a.delete_topics(args.names, operation_timeout=WAIT))
    until("the topics go", lambda: not set(args.names) & set(a.list_topics(timeout=WAIT).topics))


def partitions(args):
    a = admin(args)
    done(a.create_partitions([NewPartitions(args.name, args.count)], operation_timeout=WAIT))
    until(f'{args.count} partitions of "{args.name}"', lambda: len(partitions_of(a, args.name)) == args.count)


def user(args):
    a = admin(args)
    password = os.environ[args.password_env] if args.password_env else sys.stdin.readline().rstrip("\n")
    names = args.mechanism or list(MECHANISMS)
    for m in names:  # one request each: a broker takes a user only once in a request
        done(a.alter_user_scram_credentials([
            UserScramCredentialUpsertion(args.name, ScramCredentialInfo(MECHANISMS[m], 4096), password.encode())
        ]))
    # Made is not yet known to the listener: the first log-ins may still be refused.
    servers = os.environ.get("WINDROW_TEST_KAFKA", "127.0.0.1:19092")

    def can_log_in():
        probe = AdminClient({
            "bootstrap.servers": servers, "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": names[-1],
            "sasl.username": args.name, "sasl.password": password, "log_level": 0, "error_cb": lambda _: None,
        })
        try:
            probe.list_topics(timeout=1)
            return True
        except KafkaException:
            return False

    until(f'user "{args.name}"', can_log_in)


def delete_user(args):
    """Shuts a user out by a password nobody knows. With --really the record goes too: Kafka 3.9.1 and 4.1.0 (KRaft) then
    come back from their next restart without any SCRAM user at all."""
    a = admin(args)
    known = a.describe_user_scram_credentials([args.name])[args.name].result(WAIT)
    for c in known.scram_credential_infos:
        done(a.alter_user_scram_credentials([
            UserScramCredentialDeletion(args.name, c.mechanism) if args.really else
            UserScramCredentialUpsertion(args.name, ScramCredentialInfo(c.mechanism, 4096), os.urandom(24).hex().encode())
        ]))


def allow(args):
    """A pattern that ends in * is a prefix, as the charms grant it."""
    principal = f"User:{args.user}"

    def binding(kind, name, operation):
        pattern = ResourcePatternType.PREFIXED if name.endswith("*") and name != "*" else ResourcePatternType.LITERAL
        name = name[:-1] if pattern == ResourcePatternType.PREFIXED else name
        return AclBinding(kind, name, pattern, principal, "*", operation, AclPermissionType.ALLOW)

    wanted = []
    for name in args.read:
        wanted += [binding(ResourceType.TOPIC, name, o) for o in (AclOperation.READ, AclOperation.DESCRIBE)]
    for name in args.write:
        wanted += [binding(ResourceType.TOPIC, name, o) for o in (AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.CREATE)]
    for name in args.group:
        wanted.append(binding(ResourceType.GROUP, name + "*", AclOperation.READ))
    a = admin(args)
    done(a.create_acls(wanted))


def revoke(args):
    """All rights of a user."""
    done(admin(args).delete_acls([AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, f"User:{args.user}", None, AclOperation.ANY, AclPermissionType.ANY,
    )]))


def delete_records(args):
    """Everything before the given offsets; -1 is the end."""
    wanted = []
    for pair in args.before:
        partition, offset = pair.split(":")
        wanted.append(TopicPartition(args.name, int(partition), int(offset)))
    done(admin(args).delete_records(wanted))


def offsets(args):
    a = admin(args)
    found = {}
    for partition in partitions_of(a, args.name):
        tp = TopicPartition(args.name, partition)
        first, last = (
            next(iter(a.list_offsets({tp: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED).values())).result(WAIT).offset
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        )
        found[partition] = [first, last]
    print(json.dumps(found))


def group(args):
    """The next offset of each topic partition that a group has committed."""
    answer = admin(args).list_consumer_group_offsets([ConsumerGroupTopicPartitions(args.name)])[args.name].result(WAIT)
    print(json.dumps({f"{p.topic}/{p.partition}": p.offset for p in answer.topic_partitions}))


def use_case_records(args):
    """What the use case's producer sends: no key, JSON in Python's default layout, time in seconds and as the record's own."""
    dice = random.Random(args.seed)
    start_ms = args.start_ms if args.start_ms is not None else int(time.time() * 1000)
    for i in range(args.generate):
        ts = start_ms + i // args.origins * args.step_ms
        origin = i % args.origins
        value = {
            "timestamp": ts / 1000,
            "_id": f"{dice.getrandbits(128):032x}",
            "origin": f"producer-{origin} (10.1.63.{230 + origin % 20})",
            "content": f"Message #{i // args.origins}",
        }
        yield {"p": i % args.spread, "ts": ts, "v": json.dumps(value)}


def produce(args):
    """JSON lines {"p": partition, "ts": ms, "v": text}; also "k" and "h", "v64" for bytes, and "v": null for a tombstone."""
    settings = client(args) | {"linger.ms": 20, "compression.type": args.compression, "queue.buffering.max.messages": 1_000_000, "message.max.bytes": 32 << 20}
    if args.transaction:
        settings["transactional.id"] = args.transaction
        settings["transaction.timeout.ms"] = 600_000
    producer = Producer(settings)
    failed = []

    def told(error, _):
        if error is not None:
            failed.append(error)

    if args.transaction:
        producer.init_transactions(WAIT)
        producer.begin_transaction()
    count = 0
    for record in use_case_records(args) if args.generate else map(json.loads, filter(str.strip, sys.stdin)):
        value = base64.b64decode(record["v64"]) if "v64" in record else record["v"]
        optional = {}
        if "p" in record:
            optional["partition"] = record["p"]
        if "ts" in record:
            optional["timestamp"] = record["ts"]
        if "h" in record:
            optional["headers"] = record["h"]
        while True:
            try:
                producer.produce(args.name, value, key=record.get("k"), on_delivery=told, **optional)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        if count % 10_000 == 0:
            producer.poll(0)
    if args.transaction:
        # An aborted one leaves offsets that no reader sees.
        producer.flush(WAIT)
        if args.leave_open:
            # As a producer that dies: neither end is sent. The next one of this id ends it.
            sys.stdout.flush()
            os._exit(0)
        (producer.abort_transaction if args.abort else producer.commit_transaction)(WAIT)
    elif producer.flush(300):
        sys.exit("cannot produce: records were left in the queue")
    if failed and not args.abort:
        sys.exit(f"cannot produce to {args.name}: {failed[0]}")
    print(count)


def consume(args):
    """Everything in a topic, as the lines that `produce` reads, and "o", the offset."""
    ends = {}
    c = Consumer(client(args) | {"group.id": "kafka-admin", "enable.auto.commit": False, "enable.partition.eof": True})
    ends = set(partitions_of(admin(args), args.name))
    c.assign([TopicPartition(args.name, p, 0) for p in ends])
    while ends:
        m = c.poll(WAIT)
        if m is None:
            sys.exit(f"cannot read {args.name}: nothing within {WAIT} s")
        if m.error():
            ends.discard(m.partition())
            continue
        line = {"p": m.partition(), "o": m.offset(), "ts": m.timestamp()[1]}
        if m.key() is not None:
            line["k"] = m.key().decode(errors="replace")
        try:
            line["v"] = m.value() if m.value() is None else m.value().decode()
        except UnicodeDecodeError:
            line["v64"] = base64.b64encode(m.value()).decode()
        print(json.dumps(line))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--plain", action="store_true", help="by the listener without log-in")
    verbs = p.add_subparsers(required=True)

    def verb(f, name=None):
        v = verbs.add_parser(name or f.__name__.replace("_", "-"), help=f.__doc__)
        v.set_defaults(run=f)
        return v

    verb(ready)
    verb(topics)
    v = verb(topic)
    v.add_argument("name")
    v.add_argument("--partitions", type=int, default=1)
    v.add_argument("--config", action="append", default=[], metavar="KEY=VALUE")
    verb(delete_topic).add_argument("names", nargs="+")
    v = verb(partitions)
    v.add_argument("name")
    v.add_argument("count", type=int)
    v = verb(user)
    v.add_argument("name")
    v.add_argument("--password-env", metavar="VARIABLE", help="without it the password is read from standard input")
    v.add_argument("--mechanism", action="append", choices=MECHANISMS)
    v = verb(delete_user)
    v.add_argument("name")
    v.add_argument("--really", action="store_true")
    v = verb(allow)
    v.add_argument("user")
    v.add_argument("--read", action="append", default=[], metavar="TOPIC")
    v.add_argument("--write", action="append", default=[], metavar="TOPIC")
    v.add_argument("--group", action="append", default=[], metavar="PREFIX")
    verb(revoke).add_argument("user")
    v = verb(delete_records)
    v.add_argument("name")
    v.add_argument("before", nargs="+", metavar="PARTITION:OFFSET")
    verb(offsets).add_argument("name")
    verb(group).add_argument("name")
    verb(consume).add_argument("name")
    v = verb(produce)
    v.add_argument("name")
    v.add_argument("--compression", default="none")
    v.add_argument("--transaction", metavar="ID")
    v.add_argument("--abort", action="store_true")
    v.add_argument("--leave-open", action="store_true", help="die inside the transaction")
    v.add_argument("--generate", type=int, metavar="RECORDS", help="the use case's records instead of standard input")
    v.add_argument("--origins", type=int, default=1)
    v.add_argument("--spread", type=int, default=1, help="over how many partitions, in turn")
    v.add_argument("--start-ms", type=int, help="now, without it")
    v.add_argument("--step-ms", type=int, default=500, help="between two records of an origin")
    v.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        args.run(args)
    except (KafkaException, TimeoutError) as error:
        why = error.args[0].str() if error.args else f"no answer within {WAIT} s"
        sys.exit(f"cannot {args.run.__name__.replace('_', ' ')}: {why}")


if __name__ == "__main__":
    main()
