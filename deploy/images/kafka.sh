#!/bin/sh
# Become a node of the cluster. Each variable KAFKA_<NAME> is the property <name>, with dots for
# underscores; a folder that is not formatted yet is formatted once.
set -eu

properties=${TMPDIR:-/tmp}/server.properties
env | awk -F= '/^KAFKA_/ {
    name = tolower(substr($1, 7))
    gsub("_", ".", name)
    print name "=" substr($0, length($1) + 2)
}' > "$properties"

java=$JAVA_HOME/bin/java
class_path=$FLEAD_HOME/jars/kafka/*
logging=-Dlog4j2.configurationFile=$FLEAD_HOME/config/kafka/log4j2.yaml
case $KAFKA_PROCESS_ROLES in
    *controller*) quorum=--initial-controllers=$INITIAL_CONTROLLERS ;;
    *) quorum=--no-initial-controllers ;;
esac
"$java" -Xmx128m -cp "$class_path" "$logging" kafka.tools.StorageTool format \
    --ignore-formatted --cluster-id "$CLUSTER_ID" "$quorum" --config "$properties"
# shellcheck disable=SC2086 # its options are words of their own
exec "$java" $JAVA_OPTIONS -cp "$class_path" "$logging" kafka.Kafka "$properties"
