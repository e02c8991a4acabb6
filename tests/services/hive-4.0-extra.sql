-- What schema version 4.0 of the Hive metastore changes in the tables of 3.1 that windrow or Spark 3 touch.
-- Not the whole of it: scheduled queries, replication, stored procedures and data connectors are left out.
ALTER TABLE "TBLS" ADD COLUMN "WRITE_ID" bigint DEFAULT 0;
ALTER TABLE "PARTITIONS" ADD COLUMN "WRITE_ID" bigint DEFAULT 0;
ALTER TABLE "DBS"
    ADD COLUMN "CREATE_TIME" bigint, ADD COLUMN "DB_MANAGED_LOCATION_URI" varchar(4000),
    ADD COLUMN "TYPE" varchar(32) NOT NULL DEFAULT 'NATIVE', ADD COLUMN "DATACONNECTOR_NAME" varchar(128), ADD COLUMN "REMOTE_DBNAME" varchar(128);
ALTER TABLE "CTLGS" ADD COLUMN "CREATE_TIME" bigint;
ALTER TABLE "PARTITION_PARAMS" ALTER COLUMN "PARAM_VALUE" TYPE text;
ALTER TABLE "TAB_COL_STATS" ADD COLUMN "ENGINE" varchar(128);
ALTER TABLE "PART_COL_STATS" ADD COLUMN "ENGINE" varchar(128);
CREATE UNIQUE INDEX "NOTIFICATION_LOG_EVENT_ID" ON "NOTIFICATION_LOG" ("EVENT_ID");
-- The transaction tables are in upper case from here on; ours have no rows but the counters.
ALTER TABLE txns RENAME TO "TXNS";
ALTER TABLE txn_components RENAME TO "TXN_COMPONENTS";
ALTER TABLE completed_txn_components RENAME TO "COMPLETED_TXN_COMPONENTS";
ALTER TABLE hive_locks RENAME TO "HIVE_LOCKS";
ALTER TABLE next_lock_id RENAME TO "NEXT_LOCK_ID";
ALTER TABLE next_txn_id RENAME TO "TXN_LOCK_TBL";
UPDATE "VERSION" SET "SCHEMA_VERSION" = '4.0.0', "VERSION_COMMENT" = 'Hive release version 4.0.0';
