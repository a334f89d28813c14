#!/usr/bin/env bash
# Turns secret files into the settings that need them, then becomes the command it was given.
# A secret never stands in compose.yaml, in the image or in `docker inspect`.
set -euo pipefail

secrets=${RANKMILL_SECRETS_DIR:-/run/secrets}

secret() {
    local file="$secrets/$1"
    if [[ ! -s $file ]]; then
        echo "The secret '$1' is missing or empty: write it to docker/secrets/$1 (see docker/README.md)" >&2
        exit 2
    fi
    cat "$file"
}

quoted() { python -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.stdin.read().rstrip("\n"), safe=""))'; }

# Standard input to a file that no other user reads, and that is never seen half written.
private() {
    mkdir -p -m 700 "$(dirname "$1")"
    local draft
    draft=$(mktemp "$1.XXXXXX")
    cat > "$draft"
    mv "$draft" "$1"
}

if [[ -n ${POSTGRES_ADDRESS:-} ]]; then
    password=$(secret postgres_password)
    server="postgresql+psycopg://${POSTGRES_USER:?}:$(quoted <<< "$password")@${POSTGRES_ADDRESS}"
    unset password
fi

if [[ -n ${AIRFLOW_HOME:-} ]]; then
    AIRFLOW__API_AUTH__JWT_SECRET=$(secret airflow_jwt_secret)
    AIRFLOW__CORE__FERNET_KEY=$(secret airflow_fernet_key)
    export AIRFLOW__API_AUTH__JWT_SECRET AIRFLOW__CORE__FERNET_KEY
    export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="$server/airflow"
    export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC="$server/airflow"
fi

if [[ -n ${AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE:-} ]]; then
    password=$(secret airflow_admin_password)
    python -c 'import json, sys; print(json.dumps({"admin": sys.stdin.read().rstrip("\n")}))' <<< "$password" \
        | private "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
    unset password
fi

if [[ -n ${AWS_ENDPOINT_URL:-} ]]; then
    AWS_ACCESS_KEY_ID=$(secret s3_access_key)
    AWS_SECRET_ACCESS_KEY=$(secret s3_secret_key)
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    export AWS_DEFAULT_REGION="${AWS_REGION:?}"
fi

if [[ -n ${RANKMILL_WAREHOUSE:-} ]]; then
    export RANKMILL_CATALOG_URI="$server/catalog"
fi

if [[ -n ${MLFLOW_TRACKING_URI:-} ]]; then
    MLFLOW_TRACKING_PASSWORD=$(secret mlflow_admin_password)
    export MLFLOW_TRACKING_PASSWORD
    export MLFLOW_TRACKING_USERNAME="${MLFLOW_ADMIN:?}"
fi

if [[ -n ${MLFLOW_AUTH_CONFIG_PATH:-} ]]; then
    MLFLOW_AUTH_ADMIN_PASSWORD=$(secret mlflow_admin_password)
    MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret mlflow_secret_key)
    export MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY
    export MLFLOW_AUTH_ADMIN_USERNAME="${MLFLOW_ADMIN:?}"
    export MLFLOW_BACKEND_STORE_URI="$server/mlflow"
    # A percent sign is the file format's own. Nobody but the administrator has a permission unasked.
    private "$MLFLOW_AUTH_CONFIG_PATH" <<CONFIG
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = ${server//%/%%}/mlflow_auth
auth_cache_ttl_seconds = 60
CONFIG
fi

if [[ -n ${SPARK_CONF_DIR:-} ]]; then
    spark_secret=$(secret spark_secret)
    # Spark reads a secret from a file of its own on Kubernetes only.
    private "$SPARK_CONF_DIR/spark-defaults.conf" <<CONFIG
${RANKMILL_SPARK_MASTER:+spark.master $RANKMILL_SPARK_MASTER}
spark.authenticate true
spark.authenticate.secret $spark_secret
spark.network.crypto.enabled true
spark.master.rest.enabled false
spark.ui.enabled false
spark.ui.killEnabled false
spark.ui.showConsoleProgress false
spark.sql.session.timeZone UTC
spark.sql.parquet.outputTimestampType TIMESTAMP_MICROS
spark.sql.warehouse.dir $SPARK_CONF_DIR/warehouse
spark.driver.defaultJavaOptions -XX:+UseSerialGC -XX:TieredStopAtLevel=1
spark.executor.defaultJavaOptions -XX:+UseSerialGC -XX:TieredStopAtLevel=1
CONFIG
    unset spark_secret
    private "$SPARK_CONF_DIR/log4j2.properties" < conf/log4j2.properties
fi

python -m local.startup "$@"
exec "$@"
