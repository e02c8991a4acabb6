#!/bin/bash
# The real services that the tests need: installs, starts and stops Kafka, MinIO, PostgreSQL and Spark.
# It needs no container engine, touches no other service of the machine, and runs no tests.
#
#   services.sh install [kafka|minio|postgres|spark|spark-3.5]...
#                               without a name: kafka minio postgres
#   services.sh up [kafka|minio|minio-tls|postgres|thrift]...
#                               without a name: kafka minio postgres; installs what is missing
#   services.sh down [NAME]...  stops what `up` started; the data stays
#   services.sh wipe [NAME]...  `down`, and deletes the data
#   services.sh env             prints what the tests read, as shell exports
#   services.sh places          prints the folders of Java, Kafka's jars, MinIO and PostgreSQL's
#                               programs, one on each line
#   services.sh status
#   services.sh hive-db NAME [KIND]
#                               makes an owner and a database of that name anew; nobody else may
#                               connect, so that users of other tests get no rights in it. KIND:
#                               script (default)  Hive's own schema for 2.3
#                               3.1, 4.0          Hive's own schemas for these
#                               lazy              what a Spark makes that creates the tables itself
#                               lazy-fresh        the same, before its first CREATE TABLE
#                               empty             no schema
#   services.sh psql DATABASE [ARGUMENT]...      psql as the superuser
#   services.sh kafka VERB ...                   topics, users, rights, records: kafka_admin.py
#   services.sh s3 VERB ...                      objects: s3_admin.py
#   services.sh spark-conf DATABASE              writes Spark's settings for that metastore and
#                                                prints their folder
#   services.sh spark-job DATABASE ARGUMENT...   the streaming job that windrow replaces: spark_job.py
#   services.sh spark-sql DATABASE ARGUMENT...   SQL in a Spark of its own, rows as JSON: spark_sql.py
#   services.sh thrift-up DATABASE               Spark's Thrift server on that metastore
#                                                (`up thrift` takes hivemetastore)
#   services.sh thrift-down
#   services.sh beeline [-t] [SQL]...            sends SQL, or else standard input, to the Thrift
#                                                server; -t: tab-separated
#
# spark-job and spark-sql end when they are done. WINDROW_SPARK_VERSION=3.5.3 reads with that version.
#
# What is installed is kept in WINDROW_PARTS, and what runs in WINDROW_RUN. Delete either, and it is
# made again. With another WINDROW_RUN and other ports, a second set runs beside the first. With
# WINDROW_PG_USER, WINDROW_PG_PASSWORD, WINDROW_S3_KEY and WINDROW_S3_SECRET, Spark logs in to
# somebody else's PostgreSQL and S3 on those ports.
set -euo pipefail

KAFKA_VERSION=${WINDROW_KAFKA_VERSION:-4.1.0} # 3.9.1 works too
MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
GO_TOOLCHAIN=go1.24.8 # only where the machine's Go is too old to fetch one by itself
CONFLUENT_KAFKA_VERSION=2.12.1 # at least 2.6.1: older ones cannot log in to Kafka 4 with SCRAM
MINIO_PY_VERSION=7.2.18
SPARK_VERSION=${WINDROW_SPARK_VERSION:-3.4.2} # 3.5.3: the second reader
SPARK_KAFKA_VERSION=3.4.4 # there is no 3.4.2 of the Kafka source; this one works with Spark 3.4.2
HADOOP_VERSION=3.3.4 AWS_BUNDLE_VERSION=1.12.262 KAFKA_CLIENTS_VERSION=3.3.2 COMMONS_POOL_VERSION=2.11.1
PG_JDBC_VERSION=42.5.4
DEPENDENCY_PLUGIN_VERSION=3.6.1 SLF4J_VERSION=1.7.36

KAFKA_PORT=${WINDROW_KAFKA_PORT:-19092}             # SASL_PLAINTEXT
KAFKA_SSL_PORT=${WINDROW_KAFKA_SSL_PORT:-19093}     # SASL_SSL
KAFKA_CONTROLLER_PORT=${WINDROW_KAFKA_CONTROLLER_PORT:-19094}
KAFKA_PLAIN_PORT=${WINDROW_KAFKA_PLAIN_PORT:-19095} # PLAINTEXT: nobody logs in, all is allowed
MINIO_PORT=${WINDROW_MINIO_PORT:-19000}
MINIO_TLS_PORT=${WINDROW_MINIO_TLS_PORT:-19001}
PG_PORT=${WINDROW_PG_PORT:-15432}
THRIFT_PORT=${WINDROW_THRIFT_PORT:-10909}

# Made-up credentials: everything listens on loopback only.
KAFKA_USER=admin KAFKA_PASSWORD=admin-secret
S3_BUCKET=spark
S3_ROOT_KEY=minio-root S3_ROOT_SECRET=minio-root-secret
S3_KEY=${WINDROW_S3_KEY:-windrow} S3_SECRET=${WINDROW_S3_SECRET:-windrow-secret}
S3_READONLY_KEY=readonly S3_READONLY_SECRET=readonly-secret
PG_USER=windrow PG_PASSWORD=${WINDROW_PG_PASSWORD:-windrow-secret}

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HIVE_SQL=$HERE/../../src/io/catalog/hive-2.3.0.sql # the schema that windrow itself creates
CACHE=${WINDROW_PARTS:-${HOME:-/root}/.cache/windrow-parts}
RUN=${WINDROW_RUN:-$CACHE/run}
KAFKA_RUN=$RUN/kafka-$KAFKA_VERSION
TLS=$RUN/tls
VENV=$CACHE/venv
VENV_STAMP="confluent-kafka==$CONFLUENT_KAFKA_VERSION minio==$MINIO_PY_VERSION"

say() { echo "parts: $*" >&2; }
die() { say "$*"; exit 1; }

## Installing

# try COMMAND...: runs it up to four times, because registries drop a connection now and then.
try() {
	local n
	for n in 1 2 3 4; do
		"$@" && return
		[ "$n" = 4 ] || { say "attempt $n failed, once more: $1"; sleep $((n * 2)); }
	done
	return 1
}

# quietly LOG COMMAND...: shows the command's output only if it failed.
quietly() {
	local log=$1
	shift
	"$@" >"$log" 2>&1 || { cat "$log" >&2; return 1; }
}

# debian PACKAGE...: installs them for root, and tells everybody else what to run.
debian() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || die "missing: $*; run as root: apt-get install $*"
	say "installing $*"
	export DEBIAN_FRONTEND=noninteractive
	try apt-get -qq update >&2
	try apt-get -qq install -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@" >&2
}
need() { command -v "$1" >/dev/null || debian "$2"; }

# Spark 3.4 runs on Java 8 to 17, so the machine's default may be too new.
find_java() {
	local home
	for home in "${WINDROW_JAVA_HOME:-}" "${JAVA_HOME_17_X64:-}" /usr/lib/jvm/java-17-openjdk-* /usr/lib/jvm/*17*; do
		[ -n "$home" ] && [ -x "$home/bin/java" ] && { JAVA_HOME=$home; export JAVA_HOME; return; }
	done
	return 1
}
java17() { find_java || { debian openjdk-17-jre-headless && find_java; } || die "no Java 17 found; set WINDROW_JAVA_HOME"; }

# jars DIRECTORY TRANSITIVE GROUP:ARTIFACT:VERSION...: what Maven resolves for these coordinates.
jars() {
	local dir=$1 transitive=$2 c g a v deps= exclude= work
	shift 2
	need mvn maven
	# One slf4j binding only: slf4j-simple, which is among the coordinates.
	for a in org.slf4j:slf4j-reload4j org.apache.logging.log4j:log4j-slf4j-impl org.apache.logging.log4j:log4j-slf4j2-impl; do
		exclude+="<exclusion><groupId>${a%:*}</groupId><artifactId>${a#*:}</artifactId></exclusion>"
	done
	for c; do
		IFS=: read -r g a v <<<"$c"
		deps+="<dependency><groupId>$g</groupId><artifactId>$a</artifactId><version>$v</version><exclusions>$exclude</exclusions></dependency>"
	done
	work=$dir.new
	rm -rf "$work" && mkdir -p "$work"
	cat >"$work/pom.xml" <<-POM
		<project><modelVersion>4.0.0</modelVersion>
		<groupId>windrow.parts</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>
		<dependencies>$deps</dependencies></project>
	POM
	try quietly "$work/log" nice -n 10 mvn -B -q -f "$work/pom.xml" -DincludeScope=runtime -DexcludeTransitive="$transitive" \
		-DoutputDirectory="$work/jars" "org.apache.maven.plugins:maven-dependency-plugin:$DEPENDENCY_PLUGIN_VERSION:copy-dependencies"
	rm -rf "$dir" && mv "$work/jars" "$dir" && rm -rf "$work"
}

# venv DIRECTORY REQUIREMENT...
venv() {
	local dir=$1 python
	shift
	[ "$(cat "$dir/stamp" 2>/dev/null)" = "$*" ] && return
	# Python up to 3.11 is tried first: Spark 3.4 was not made for later versions.
	for python in python3.11 python3.10 python3 ''; do
		[ -n "$python" ] || { debian python3-venv && python=python3; }
		"$python" -c 'import ensurepip, venv' 2>/dev/null && break
	done
	say "python packages: $*"
	rm -rf "$dir"
	"$python" -m venv "$dir"
	try nice -n 10 "$dir/bin/pip" -q --disable-pip-version-check install "$@" >&2
	echo "$*" >"$dir/stamp"
}

install_kafka() {
	java17
	need openssl openssl
	# shellcheck disable=SC2086 # a list
	venv "$VENV" $VENV_STAMP
	[ -d "$CACHE/kafka-$KAFKA_VERSION" ] && return
	say "Kafka $KAFKA_VERSION"
	jars "$CACHE/kafka-$KAFKA_VERSION" false "org.apache.kafka:kafka_2.13:$KAFKA_VERSION" \
		"org.apache.kafka:kafka-tools:$KAFKA_VERSION" "org.slf4j:slf4j-simple:$SLF4J_VERSION"
}

go_new_enough() {
	need go golang-go
	GO=go
	local minor
	minor=$(go env GOVERSION) minor=${minor#go1.} minor=${minor%%[!0-9]*}
	[ "$minor" -ge 21 ] && return # since 1.21, Go fetches the toolchain that a module asks for
	local arch dir
	arch=$(go env GOARCH) GO=$CACHE/go/bin/go
	[ -x "$GO" ] && return
	say "Go $GO_TOOLCHAIN"
	# A toolchain is a module like any other, except that its files have lost their mode.
	dir=$(cd / && try go mod download -json "golang.org/toolchain@v0.0.1-$GO_TOOLCHAIN.linux-$arch" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
	rm -rf "$CACHE/go.new"
	cp -r "$dir" "$CACHE/go.new" && chmod -R u+w "$CACHE/go.new" && chmod +x "$CACHE"/go.new/bin/* "$CACHE"/go.new/pkg/tool/*/*
	mv "$CACHE/go.new" "$CACHE/go"
}

install_minio() {
	need openssl openssl
	# shellcheck disable=SC2086
	venv "$VENV" $VENV_STAMP
	MINIO=$CACHE/minio-${MINIO_VERSION##*-}
	[ -x "$MINIO/minio" ] && return
	go_new_enough
	say "MinIO $MINIO_VERSION (a few minutes of building)"
	CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOBIN=$MINIO.new try nice -n 10 "$GO" install -trimpath -ldflags '-s -w' "github.com/minio/minio@$MINIO_VERSION" >&2
	rm -rf "$MINIO" && mv "$MINIO.new" "$MINIO"
}

find_postgres() {
	PG_BIN=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n | tail -1)
	[ -n "${WINDROW_PG_BIN:-}" ] && PG_BIN=$WINDROW_PG_BIN
	[ -n "$PG_BIN" ] && [ -x "$PG_BIN/initdb" ]
}
install_postgres() {
	find_postgres && return
	if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		# Without this, the package would start a server of its own.
		mkdir -p /etc/postgresql-common
		echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	fi
	debian postgresql
	find_postgres || die "no PostgreSQL under /usr/lib/postgresql; set WINDROW_PG_BIN"
}

spark_home() { SPARK=$CACHE/spark-$SPARK_VERSION; SPARK_JARS=$CACHE/spark-jars-$SPARK_KAFKA_VERSION-$HADOOP_VERSION; }
install_spark() {
	java17
	spark_home
	venv "$SPARK" "pyspark==$SPARK_VERSION" setuptools==80.9.0
	[ -d "$SPARK_JARS" ] && return
	say "jars for Spark"
	jars "$SPARK_JARS" true "org.apache.hadoop:hadoop-aws:$HADOOP_VERSION" "com.amazonaws:aws-java-sdk-bundle:$AWS_BUNDLE_VERSION" \
		"org.apache.kafka:kafka-clients:$KAFKA_CLIENTS_VERSION" "org.apache.spark:spark-sql-kafka-0-10_2.12:$SPARK_KAFKA_VERSION" \
		"org.apache.spark:spark-token-provider-kafka-0-10_2.12:$SPARK_KAFKA_VERSION" \
		"org.apache.commons:commons-pool2:$COMMONS_POOL_VERSION" "org.postgresql:postgresql:$PG_JDBC_VERSION"
}
install_spark35() { (SPARK_VERSION=3.5.3; install_spark); }
install() {
	local part
	for part; do
		case $part in
			kafka) install_kafka ;;
			minio | minio-tls) install_minio ;;
			postgres) install_postgres ;;
			spark | thrift) install_spark ;;
			spark-3.5) install_spark35 ;;
			*) die "unknown part \"$part\"" ;;
		esac
	done
}

## Starting and stopping

# born PID: when the process started. The pid alone may belong to another process by now.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
running() { # running NAME: sets PID
	local t
	read -r PID t 2>/dev/null <"$RUN/$1.pid" && [ -n "$t" ] && [ "$(born "$PID")" = "$t" ]
}
# start NAME COMMAND...
start() {
	local name=$1
	shift
	setsid "$@" >>"$RUN/$name.log" 2>&1 </dev/null 9>&- &
	echo "$! $(born $!)" >"$RUN/$name.pid"
}
# free PORT...: fails when something listens there, because it would be taken for ours.
free() {
	local port
	for port; do
		if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then die "port $port is taken by another process; see the *_PORT variables"; fi
	done
}
# await NAME SECONDS COMMAND...
await() {
	local name=$1 end=$(($(date +%s) + $2))
	shift 2
	until "$@" >/dev/null 2>&1; do
		running "$name" || { tail -n 20 "$RUN/$name.log" >&2; die "$name ended; its log: $RUN/$name.log"; }
		[ "$(date +%s)" -lt "$end" ] || die "$name is not ready in time; its log: $RUN/$name.log"
		sleep 0.1
	done
}
# signal NAME: signals the process that `start` wrote down, if it is still that process.
signal() {
	local how=TERM
	[ "$1" = postgres ] && how=INT # TERM would wait for every client to leave
	if running "$1"; then kill -s $how "$PID"; fi
}
gone() { # gone NAME: waits until it has ended
	local _
	for _ in $(seq 200); do
		running "$1" || break
		sleep 0.1
	done
	if running "$1"; then say "$1 does not stop, killing it"; kill -9 "$PID"; fi
	rm -f "$RUN/$1.pid"
}

# Makes a certificate authority, and one certificate for everything on loopback.
certificates() {
	[ -f "$TLS/server.pem" ] && return
	rm -rf "$TLS" && mkdir -p "$TLS" && (
		cd "$TLS"
		umask 077
		openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=windrow test authority" -keyout ca.key -out ca.pem \
			-addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
		openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout private.key -out server.csr 2>/dev/null
		printf '%s\n' 'subjectAltName=DNS:localhost,IP:127.0.0.1' 'extendedKeyUsage=serverAuth' >server.ext
		openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile server.ext -out public.crt 2>/dev/null
		cat private.key public.crt >server.pem.new && mv server.pem.new server.pem
		chmod a+r ca.pem
	)
}

kafka_java() { "$JAVA_HOME/bin/java" -cp "$CACHE/kafka-$KAFKA_VERSION/*" "$@"; }
start_kafka() {
	running kafka && return
	free "$KAFKA_PORT" "$KAFKA_SSL_PORT" "$KAFKA_CONTROLLER_PORT" "$KAFKA_PLAIN_PORT"
	certificates
	mkdir -p "$KAFKA_RUN"
	local scram='org.apache.kafka.common.security.scram.ScramLoginModule required;' conf=$KAFKA_RUN/server.properties
	cat >"$conf" <<-CONF
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT
		listeners=SASL_PLAINTEXT://127.0.0.1:$KAFKA_PORT,SASL_SSL://127.0.0.1:$KAFKA_SSL_PORT,PLAINTEXT://127.0.0.1:$KAFKA_PLAIN_PORT,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT
		advertised.listeners=SASL_PLAINTEXT://127.0.0.1:$KAFKA_PORT,SASL_SSL://127.0.0.1:$KAFKA_SSL_PORT,PLAINTEXT://127.0.0.1:$KAFKA_PLAIN_PORT
		listener.security.protocol.map=SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=PLAINTEXT
		sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256
		listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=$scram
		listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=$scram
		listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$scram
		listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$scram
		ssl.keystore.type=PEM
		ssl.keystore.location=$TLS/server.pem
		authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
		super.users=User:$KAFKA_USER;User:ANONYMOUS
		allow.everyone.if.no.acl.found=false
		auto.create.topics.enable=false
		num.partitions=1
		default.replication.factor=1
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=1
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=1
		group.initial.rebalance.delay.ms=0
		log.dirs=$KAFKA_RUN/data
		log.retention.ms=-1
	CONF
	# The authorizer lets PLAINTEXT peers (the broker itself, the controller) in as ANONYMOUS, a super user.
	if [ ! -f "$KAFKA_RUN/data/meta.properties" ]; then
		rm -rf "$KAFKA_RUN/data"
		kafka_java -Xmx128m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.tools.StorageTool \
			format -t windrowPartsKafkaAAAAA -c "$conf" >>"$RUN/kafka.log" 2>&1 || die "cannot format Kafka's log: see $RUN/kafka.log"
	fi
	KAFKA_STARTED=yes
	start kafka "$JAVA_HOME/bin/java" -Xms256m -Xmx"${WINDROW_KAFKA_HEAP:-512m}" -XX:+UseSerialGC ${WINDROW_KAFKA_JAVA_OPTS--XX:TieredStopAtLevel=1} \
		-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true \
		-cp "$CACHE/kafka-$KAFKA_VERSION/*" kafka.Kafka "$conf"
}
ready_kafka() {
	environment # without it, the broker of another set would answer
	await kafka 60 "$VENV/bin/python" "$HERE/kafka_admin.py" --plain ready
	# At every start: see delete-user in kafka_admin.py.
	[ -z "${KAFKA_STARTED:-}" ] || kafka_admin --plain user "$KAFKA_USER" --password-env WINDROW_TEST_KAFKA_PASSWORD
}

# start_minio NAME PORT [ARGUMENT]...
start_minio() {
	local name=$1 port=$2
	shift 2
	running "$name" && return
	free "$port"
	MINIO_ROOT_USER=$S3_ROOT_KEY MINIO_ROOT_PASSWORD=$S3_ROOT_SECRET MINIO_BROWSER=off MINIO_UPDATE=off MINIO_API_REQUESTS_MAX=200 \
		start "$name" "$MINIO/minio" server --quiet --address "127.0.0.1:$port" "$@" "$RUN/$name"
}
ready_minio() { # ready_minio NAME URL
	running "$1" || die "$1 ended; its log: $RUN/$1.log"
	WINDROW_TEST_S3=$2 s3_admin setup >/dev/null || die "$1 cannot be set up; its log: $RUN/$1.log"
}
certs_for_minio() {
	certificates
	mkdir -p "$RUN/minio-certs" && cp "$TLS/private.key" "$TLS/public.crt" "$RUN/minio-certs/"
}

# PostgreSQL refuses to run as root, and its user may not be able to enter our folder.
postgres_place() {
	AS=() PG_RUN=$RUN/postgres
	[ "$(id -u)" = 0 ] || return 0
	AS=(setpriv --reuid=postgres --regid=postgres --init-groups)
	"${AS[@]}" test -x "$RUN" || PG_RUN=/var/tmp/windrow-parts-$PG_PORT/postgres
	PG_RUN=${WINDROW_PG_RUN:-$PG_RUN}
}
# With and without TLS on one port. The certificate has no name but localhost, so that another name can be refused.
certs_for_postgres() {
	[ -f "$PG_RUN/server.crt" ] && return
	certificates
	(
		cd "$PG_RUN"
		openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr 2>/dev/null
		printf '%s\n' 'subjectAltName=DNS:localhost' 'extendedKeyUsage=serverAuth' >server.ext
		openssl x509 -req -in server.csr -CA "$TLS/ca.pem" -CAkey "$TLS/ca.key" -CAcreateserial -days 3650 -extfile server.ext \
			-out server.crt 2>/dev/null
		chmod 600 server.key
		if [ "$(id -u)" = 0 ]; then chown postgres:postgres server.key server.crt; fi
	)
}

start_postgres() {
	running postgres && return
	free "$PG_PORT"
	postgres_place
	if [ ! -f "$PG_RUN/data/PG_VERSION" ]; then
		rm -rf "$PG_RUN" && mkdir -p "$PG_RUN"
		echo "$PG_PASSWORD" >"$PG_RUN/password" && chmod 600 "$PG_RUN/password"
		[ "$(id -u)" = 0 ] && chown -R postgres:postgres "$PG_RUN"
		(cd / && "${AS[@]}" "$PG_BIN/initdb" -D "$PG_RUN/data" -U "$PG_USER" --pwfile="$PG_RUN/password" --auth=scram-sha-256 \
			--encoding=UTF8 --locale=C --no-sync) >>"$RUN/postgres.log" 2>&1 || die "cannot make the cluster: see $RUN/postgres.log"
		rm "$PG_RUN/password"
	fi
	certs_for_postgres
	start postgres "${AS[@]}" "$PG_BIN/postgres" -D "$PG_RUN/data" -p "$PG_PORT" -c listen_addresses=127.0.0.1 \
		-c ssl=on -c ssl_cert_file="$PG_RUN/server.crt" -c ssl_key_file="$PG_RUN/server.key" \
		-c unix_socket_directories="$PG_RUN" -c max_connections=200 -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
		-c password_encryption=scram-sha-256 -c log_min_messages=warning
}
psql_() { # psql_ USER DATABASE [ARGUMENT]...
	local user=$1 db=$2
	shift 2
	PGPASSWORD=$PG_PASSWORD PGOPTIONS="--client-min-messages=warning ${PGOPTIONS:-}" "$PG_BIN/psql" -X -h 127.0.0.1 -p "$PG_PORT" -U "$user" -d "$db" -v ON_ERROR_STOP=1 "$@"
}
hive_db() { # hive_db NAME [KIND]
	local name=$1 kind=${2:-script} sql=()
	[[ $name =~ ^[a-z][a-z0-9_]*$ ]] || die "a database name here is a-z, 0-9 and _"
	case $kind in
		script) sql=("$HIVE_SQL") ;;
		3.1) sql=("$HIVE_SQL" "$HERE/hive-3.1-extra.sql") ;;
		4.0) sql=("$HIVE_SQL" "$HERE/hive-3.1-extra.sql" "$HERE/hive-4.0-extra.sql") ;;
		lazy | lazy-fresh) sql=("$HERE/hive-lazy.sql") ;;
		empty) ;;
		*) die "unknown kind \"$kind\": script, 3.1, 4.0, lazy, lazy-fresh or empty" ;;
	esac
	psql_ "$PG_USER" postgres -q <<-SQL
		DROP DATABASE IF EXISTS "$name" WITH (FORCE);
		DO \$\$ BEGIN CREATE ROLE "$name" LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END \$\$;
		ALTER ROLE "$name" PASSWORD '$PG_PASSWORD';
		CREATE DATABASE "$name" OWNER "$name";
		REVOKE ALL ON DATABASE "$name" FROM PUBLIC;
	SQL
	local f
	for f in "${sql[@]}"; do
		if [ "$kind" = lazy-fresh ]; then sed '/^-- after the first CREATE TABLE/,$d' "$f"; else cat "$f"; fi
	done | psql_ "$name" "$name" -q -1 >/dev/null
	echo "postgresql://127.0.0.1:$PG_PORT/$name"
}

kafka_admin() { environment && "$VENV/bin/python" "$HERE/kafka_admin.py" "$@"; }
s3_admin() { local s3=${WINDROW_TEST_S3:-}; environment && WINDROW_TEST_S3=${s3:-$WINDROW_TEST_S3} "$VENV/bin/python" "$HERE/s3_admin.py" "$@"; }

# spark_conf DATABASE: sets CONF. Passwords go into files that only we may read, not into arguments.
spark_conf() {
	spark_home
	[ -x "$SPARK/bin/python" ] && [ -d "$SPARK_JARS" ] || die "no Spark $SPARK_VERSION; run services.sh install spark, or spark-3.5"
	CONF=$RUN/spark-conf/$1-$SPARK_VERSION
	mkdir -p "$CONF" "$RUN/spark-tmp"
	local lib
	lib=$(echo "$SPARK"/lib/python3*/site-packages/pyspark)
	export SPARK_HOME=$lib SPARK_CONF_DIR=$CONF SPARK_LOCAL_IP=127.0.0.1 PYSPARK_PYTHON=$SPARK/bin/python PYSPARK_DRIVER_PYTHON=$SPARK/bin/python
	local fast=${WINDROW_SPARK_JAVA_OPTS--XX:TieredStopAtLevel=1 -XX:+UseSerialGC}
	(
		umask 077
		cat >"$CONF/spark-defaults.conf.$$" <<-CONF
			spark.master local[2]
			spark.driver.memory ${WINDROW_SPARK_MEMORY:-1g}
			spark.driver.extraClassPath $SPARK_JARS/*
			spark.driver.extraJavaOptions $fast
			spark.driver.bindAddress 127.0.0.1
			spark.local.dir $RUN/spark-tmp
			spark.ui.enabled false
			spark.ui.showConsoleProgress false
			spark.sql.catalogImplementation hive
			spark.sql.warehouse.dir s3a://$S3_BUCKET/warehouse
			spark.sql.session.timeZone UTC
			spark.sql.shuffle.partitions ${WINDROW_SPARK_SHUFFLE:-2}
			spark.sql.streaming.ui.enabled false
			spark.hadoop.fs.s3a.endpoint http://127.0.0.1:$MINIO_PORT
			spark.hadoop.fs.s3a.endpoint.region us-east-1
			spark.hadoop.fs.s3a.access.key $S3_KEY
			spark.hadoop.fs.s3a.secret.key $S3_SECRET
			spark.hadoop.fs.s3a.path.style.access true
			spark.hadoop.fs.s3a.connection.ssl.enabled false
			spark.hadoop.fs.s3a.aws.credentials.provider org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider
		CONF
		mv "$CONF/spark-defaults.conf.$$" "$CONF/spark-defaults.conf"
		property() { printf '<property><name>%s</name><value>%s</value></property>\n' "$@"; }
		{
			# The same keys as Charmed Kyuubi writes.
			echo '<configuration>'
			property javax.jdo.option.ConnectionURL "jdbc:postgresql://127.0.0.1:$PG_PORT/$1?createDatabaseIfNotExist=true" \
				javax.jdo.option.ConnectionDriverName org.postgresql.Driver \
				javax.jdo.option.ConnectionUserName "${WINDROW_PG_USER:-$1}" javax.jdo.option.ConnectionPassword "$PG_PASSWORD" \
				datanucleus.autoCreateSchema true datanucleus.fixedDatastore true datanucleus.autoCreateTables true \
				hive.server2.enable.doAs false hive.metastore.schema.verification false
			echo '</configuration>'
		} >"$CONF/hive-site.xml.$$"
		mv "$CONF/hive-site.xml.$$" "$CONF/hive-site.xml"
		cat >"$CONF/log4j2.properties" <<-CONF
			rootLogger.level = ${WINDROW_SPARK_LOG:-error}
			rootLogger.appenderRef.stderr.ref = stderr
			logger.repl.name = org.apache.spark.api.python.PythonGatewayServer
			logger.repl.level = ${WINDROW_SPARK_LOG:-error}
			appender.stderr.type = Console
			appender.stderr.name = stderr
			appender.stderr.target = SYSTEM_ERR
			appender.stderr.layout.type = PatternLayout
			appender.stderr.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
		CONF
	)
}
spark_run() { # spark_run SCRIPT DATABASE [ARGUMENT]...
	local script=$1 db=${2:?a database}
	shift 2
	java17
	environment
	spark_conf "$db"
	"$SPARK/bin/python" "$HERE/$script" "$@"
}

thrift_up() { # thrift_up DATABASE
	if running thrift; then
		[ "$(cat "$RUN/thrift.database")" = "$1" ] && return
		down thrift
	fi
	java17
	free "$THRIFT_PORT"
	spark_conf "$1"
	echo "$1" >"$RUN/thrift.database"
	start thrift "$SPARK_HOME/bin/spark-submit" --class org.apache.spark.sql.hive.thriftserver.HiveThriftServer2 --name thrift \
		spark-internal --hiveconf hive.server2.thrift.bind.host=127.0.0.1 --hiveconf "hive.server2.thrift.port=$THRIFT_PORT"
	await thrift 90 bash -c "</dev/tcp/127.0.0.1/$THRIFT_PORT"
}
beeline() { # beeline [-t] [SQL]...
	local format=table sql
	if [ "${1:-}" = -t ]; then format=tsv2 && shift; fi
	java17
	spark_conf beeline
	if [ $# = 0 ]; then sql=$(cat); else sql=$(printf '%s;\n' "$@"); fi
	# The SQL goes in as a file, because with standard input beeline also prints its prompts. The
	# "null" is what its silent mode leaves of a log line.
	local log
	log=$(mktemp)
	if SPARK_BEELINE_OPTS='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC' "$SPARK_HOME/bin/beeline" -u "jdbc:hive2://127.0.0.1:$THRIFT_PORT/" -n test \
		--silent=true --verbose=false --showHeader=true --outputformat=$format --maxWidth=400 -f <(echo "$sql") 2>"$log" |
		sed -u 's/\r//g; :again; s/^null  *null//; t again; /^$/d'; then
		rm "$log"
	else
		grep -m1 '^Error' "$log" >&2 || cat "$log" >&2
		rm "$log"
		return 1
	fi
}

up() {
	local part
	mkdir -p "$RUN" && chmod 711 "$RUN"
	install "$@"
	# All are started first, and then each is waited for.
	for part; do
		case $part in
			kafka) start_kafka ;;
			minio) start_minio minio "$MINIO_PORT" ;;
			minio-tls) certs_for_minio && start_minio minio-tls "$MINIO_TLS_PORT" --certs-dir "$RUN/minio-certs" ;;
			postgres) start_postgres ;;
			thrift) THRIFT=hivemetastore ;;
			spark*) ;;
		esac
	done
	for part; do
		case $part in
			kafka) ready_kafka ;;
			minio) ready_minio minio "http://127.0.0.1:$MINIO_PORT" ;;
			minio-tls) ready_minio minio-tls "https://127.0.0.1:$MINIO_TLS_PORT" ;;
			postgres) await postgres 30 "$PG_BIN/pg_isready" -q -h 127.0.0.1 -p "$PG_PORT" ;;
		esac
	done
	if [ -n "${THRIFT:-}" ]; then
		# The name that Charmed Kyuubi uses.
		[ -n "$(psql_ "$PG_USER" postgres -tAc "SELECT 1 FROM pg_database WHERE datname = '$THRIFT'")" ] || hive_db "$THRIFT" >/dev/null
		thrift_up "$THRIFT"
	fi
}
down() {
	local part
	for part; do signal "$part"; done
	for part; do gone "$part"; done
}
wipe() {
	local part
	down "$@"
	for part; do
		case $part in
			kafka) rm -rf "$RUN"/kafka-* ;;
			minio | minio-tls) rm -rf "${RUN:?}/$part" ;;
			postgres) postgres_place && rm -rf "$PG_RUN" ;;
		esac
		rm -f "$RUN/$part.log"
	done
}
ALL=(thrift kafka minio minio-tls postgres)

environment() {
	set -a
	WINDROW_TEST_KAFKA=127.0.0.1:$KAFKA_PORT
	WINDROW_TEST_KAFKA_SSL=127.0.0.1:$KAFKA_SSL_PORT
	WINDROW_TEST_KAFKA_PLAIN=127.0.0.1:$KAFKA_PLAIN_PORT
	WINDROW_TEST_KAFKA_CA=$TLS/ca.pem
	WINDROW_TEST_KAFKA_USER=$KAFKA_USER
	WINDROW_TEST_KAFKA_PASSWORD=$KAFKA_PASSWORD
	WINDROW_TEST_S3=http://127.0.0.1:$MINIO_PORT
	WINDROW_TEST_S3_TLS=https://127.0.0.1:$MINIO_TLS_PORT
	WINDROW_TEST_S3_CA=$TLS/ca.pem
	WINDROW_TEST_S3_BUCKET=$S3_BUCKET
	WINDROW_TEST_S3_KEY=$S3_KEY
	WINDROW_TEST_S3_SECRET=$S3_SECRET
	WINDROW_TEST_S3_READONLY_KEY=$S3_READONLY_KEY
	WINDROW_TEST_S3_READONLY_SECRET=$S3_READONLY_SECRET
	WINDROW_TEST_S3_ROOT_KEY=$S3_ROOT_KEY
	WINDROW_TEST_S3_ROOT_SECRET=$S3_ROOT_SECRET
	WINDROW_TEST_PG=127.0.0.1:$PG_PORT
	WINDROW_TEST_PG_TLS=localhost:$PG_PORT
	WINDROW_TEST_PG_CA=$TLS/ca.pem
	WINDROW_TEST_PG_USER=$PG_USER
	WINDROW_TEST_PG_PASSWORD=$PG_PASSWORD
	WINDROW_TEST_THRIFT=127.0.0.1:$THRIFT_PORT
	WINDROW_TEST_PYTHON=$VENV/bin/python
	WINDROW_TEST_PARTS=$HERE/services.sh
	set +a
}

main() {
	local verb=${1:-}
	[ $# = 0 ] || shift
	mkdir -p "$CACHE" "$RUN"
	case $verb in
		install | up | down | wipe | thrift-up | thrift-down) # one at a time; `start` keeps the lock from what it starts
			exec 9>"$CACHE/lock"
			flock 9
			;;
	esac
	find_java || true
	find_postgres || true
	case $verb in
		install) if [ $# = 0 ]; then set -- kafka minio postgres; fi; install "$@" ;;
		up) if [ $# = 0 ]; then set -- kafka minio postgres; fi; up "$@" ;;
		down) if [ $# = 0 ]; then set -- "${ALL[@]}"; fi; down "$@" ;;
		wipe) if [ $# = 0 ]; then set -- "${ALL[@]}"; fi; wipe "$@" ;;
		env)
			environment
			local name
			for name in ${!WINDROW_TEST_@}; do printf 'export %s=%q\n' "$name" "${!name}"; done
			;;
		status)
			local part
			for part in "${ALL[@]}"; do
				if running "$part"; then echo "$part: running, pid $PID"; else echo "$part: down"; fi
			done
			;;
		hive-db) hive_db "$@" ;;
		psql) psql_ "$PG_USER" "$@" ;;
		places) java17 && find_postgres && printf '%s\n' "$JAVA_HOME" "$CACHE/kafka-$KAFKA_VERSION" "$CACHE/minio-${MINIO_VERSION##*-}/minio" "$PG_BIN" ;;
		spark-conf) spark_conf "${1:?a database}" && echo "$CONF" ;;
		spark-job) spark_run spark_job.py "$@" ;;
		spark-sql) spark_run spark_sql.py "$@" ;;
		thrift-up) thrift_up "${1:?a database}" ;;
		thrift-down) down thrift ;;
		beeline) beeline "$@" ;;
		kafka) kafka_admin "$@" ;;
		s3) s3_admin "$@" ;;
		*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
	esac
}
main "$@"
