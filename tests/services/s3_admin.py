#!/usr/bin/env python3
"""The bucket, the users and the objects of the test's MinIO. Reads the WINDROW_TEST_S3* variables of `services.sh env`."""
import argparse
import io
import os
import signal
import sys
import time
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider

ENV = os.environ
BUCKET = ENV.get("WINDROW_TEST_S3_BUCKET", "spark")


def pool():
    return urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED", ca_certs=ENV.get("WINDROW_TEST_S3_CA"), timeout=urllib3.Timeout(10),
        retries=urllib3.Retry(total=2, backoff_factor=0.1),
    )


def clients():
    url = urlsplit(ENV["WINDROW_TEST_S3"])
    key, secret, tls = ENV["WINDROW_TEST_S3_ROOT_KEY"], ENV["WINDROW_TEST_S3_ROOT_SECRET"], url.scheme == "https"
    return (
        Minio(url.netloc, key, secret, secure=tls, region="us-east-1", http_client=pool()),
        MinioAdmin(endpoint=url.netloc, credentials=StaticProvider(key, secret), secure=tls, region="us-east-1", http_client=pool()),
    )


def policy(*actions):
    return {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": list(actions), "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]},
    ]}


def setup(args):
    """Waits for the server; then the bucket, `windrow` who may write, `readonly` who may not."""
    s3, admin = clients()
    end = time.monotonic() + 30
    while True:
        try:
            if not s3.bucket_exists(BUCKET):
                s3.make_bucket(BUCKET)
            break
        except Exception as error:
            if time.monotonic() > end:
                sys.exit(f"cannot reach {ENV['WINDROW_TEST_S3']}: {error}")
            time.sleep(0.1)
    admin.policy_add("spark-write", policy=policy("s3:*"))
    admin.policy_add("spark-read", policy=policy("s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"))
    for key, secret, name in (
        ("WINDROW_TEST_S3_KEY", "WINDROW_TEST_S3_SECRET", "spark-write"),
        ("WINDROW_TEST_S3_READONLY_KEY", "WINDROW_TEST_S3_READONLY_SECRET", "spark-read"),
    ):
        admin.user_add(ENV[key], ENV[secret])
        admin.policy_set(name, user=ENV[key])


def user(args):
    """One more who may write; the secret key is read from standard input."""
    admin = clients()[1]
    admin.user_add(args.name, sys.stdin.readline().rstrip("\n"))
    admin.policy_set("spark-write", user=args.name)


def ls(args):
    for o in clients()[0].list_objects(args.bucket, args.prefix, recursive=True):
        print(o.size, o.object_name)


def get(args):
    answer = clients()[0].get_object(args.bucket, args.name)
    sys.stdout.buffer.write(answer.read())


def put(args):
    body = sys.stdin.buffer.read()
    clients()[0].put_object(args.bucket, args.name, io.BytesIO(body), len(body))


def rm(args):
    """Every object with this prefix."""
    s3 = clients()[0]
    for o in list(s3.list_objects(args.bucket, args.prefix, recursive=True)):
        s3.remove_object(args.bucket, o.object_name)


def bucket(args):
    s3 = clients()[0]
    if not s3.bucket_exists(args.name):
        s3.make_bucket(args.name)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--bucket", default=BUCKET)
    verbs = p.add_subparsers(required=True)
    for f, argument in ((setup, None), (user, "name"), (ls, "prefix"), (get, "name"), (put, "name"), (rm, "prefix"), (bucket, "name")):
        v = verbs.add_parser(f.__name__, help=f.__doc__)
        v.set_defaults(run=f)
        if argument:
            v.add_argument(argument, **({"nargs": "?", "default": ""} if f is ls else {}))
    args = p.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    args.run(args)


if __name__ == "__main__":
    main()
