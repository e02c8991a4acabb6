#!/usr/bin/env python3
"""The use case's Spark streaming job, which windrow replaces. Only its inputs were changed.

It runs under `services.sh spark-job DATABASE ...`, which sets up the metastore, the bucket and the Kafka log-in. It reads
what is in the topic and ends (trigger availableNow), unless told to stay.
"""
import argparse
import os
from json import loads

from pyspark.sql import SparkSession
from pyspark.sql.functions import col, udf, window


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("topic")
    p.add_argument("--table", help="without it: console mode, all counts so far after every batch")
    p.add_argument("--checkpoint", help="default: checkpoints/<table> in the bucket")
    p.add_argument("--window", default="10 seconds")
    p.add_argument("--slide", help="default: as the window")
    p.add_argument("--watermark-delay", default="10 seconds")
    p.add_argument("--start", default="earliest", choices=("earliest", "latest"))
    p.add_argument("--max-offsets", help="records a batch at most; availableNow then makes several")
    p.add_argument("--stay", metavar="SECONDS", type=float, help="a batch as soon as there is something; end after so long")
    args = p.parse_args()
    env = os.environ

    spark = SparkSession.builder.appName("use-case").getOrCreate()
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required username={} password={};"
    lines = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", env["WINDROW_TEST_KAFKA"])
        .option("kafka.sasl.mechanism", "SCRAM-SHA-512")
        .option("kafka.security.protocol", "SASL_PLAINTEXT")
        .option("kafka.sasl.jaas.config", login.format(
            *(f'"{env[name]}"' for name in ("WINDROW_TEST_KAFKA_USER", "WINDROW_TEST_KAFKA_PASSWORD"))))
        .option("subscribe", args.topic)
        .option("includeHeaders", "true")
        .option("startingOffsets", args.start)
    )
    if args.max_offsets:
        lines = lines.option("maxOffsetsPerTrigger", args.max_offsets)
    lines = lines.load()

    get_origin = udf(lambda x: loads(x)["origin"])
    span = (args.window, args.slide) if args.slide else (args.window,)
    count = (
        lines.withColumn("origin", get_origin(col("value")))
        .select("origin", "timestamp")
        .withWatermark("timestamp", args.watermark_delay)
        .groupBy(window("timestamp", *span), "origin")
        .count()
    )

    if args.table:
        name = args.table.split(".")[-1]
        out = (
            count.writeStream.option("checkpointLocation", args.checkpoint or f"s3a://{env['WINDROW_TEST_S3_BUCKET']}/checkpoints/{name}")
            .format("parquet")
            .outputMode("append")
        )
    else:
        out = count.writeStream.outputMode("complete").format("console").option("truncate", "false").option("numRows", 1000)
    if args.stay is None:
        out = out.trigger(availableNow=True)
    query = out.toTable(args.table) if args.table else out.start()
    query.awaitTermination(args.stay)
    query.stop()


if __name__ == "__main__":
    main()
