#!/usr/bin/env python3
"""Runs SQL in a Spark session of its own and prints the rows as JSON lines: the judge of what windrow wrote.

It runs under `services.sh spark-sql DATABASE ...`. Statements are separated by ";" at a line's end, or are one argument each. For each one comes
{"sql": ..., "columns": [...], "types": [...], "rows": N} or {"sql": ..., "error": ...}, then every row as an array. Timestamps
are text in the session's time zone, structs are objects, decimals and dates text. It fails if a statement failed.
With --follow each line of standard input is a statement, answered before the next is read: a session held open.
"""
import argparse
import json
import re
import sys

from pyspark.sql import SparkSession
from pyspark.sql.functions import struct, to_json


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("statements", nargs="*", help="without any: read from --file, or from standard input")
    p.add_argument("--file")
    p.add_argument("--follow", action="store_true", help="each line of standard input as it comes")
    p.add_argument("--timezone", default="UTC")
    p.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE")
    args = p.parse_args()

    text = args.statements
    if args.follow:
        text = iter(sys.stdin.readline, "")
    elif not text:
        source = open(args.file, encoding="utf-8") if args.file else sys.stdin
        text = re.split(r";[ \t]*(?:\n|$)", source.read())
    statements = (s.strip().rstrip(";") for s in text if s.strip())

    builder = SparkSession.builder.appName("sql").config("spark.sql.session.timeZone", args.timezone)
    for pair in args.conf:
        builder = builder.config(*pair.split("=", 1))
    spark = builder.getOrCreate()

    failed = False
    for sql in statements:
        try:
            found = spark.sql(sql)
            columns = found.columns
            # Named by position: two columns of a result may have the same name.
            named = found.toDF(*(f"c{i}" for i in range(len(columns))))
            options = {"ignoreNullFields": "false", "timestampFormat": "yyyy-MM-dd HH:mm:ss[.SSSSSS]"}
            rows = [r[0] for r in named.select(to_json(struct("*"), options)).collect()] if columns else []
            print(json.dumps({"sql": sql, "columns": columns, "types": [t for _, t in found.dtypes], "rows": len(rows)}))
            for row in rows:
                print(json.dumps(list(json.loads(row).values())))
        except Exception as error:  # whatever Spark says is the answer
            failed = True
            lines = str(error).split("\n")
            # The first line may say no more than which call has failed; the last cause says why.
            causes = [line.strip() for line in lines if line.startswith("Caused by:")]
            print(json.dumps({"sql": sql, "error": " ".join(lines[:1] + causes[-1:])}))
        sys.stdout.flush()
    spark.stop()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
