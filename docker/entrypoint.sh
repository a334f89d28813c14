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

quoted() { python -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$1"; }

if [[ -n ${POSTGRES_HOST:-} ]]; then
    password=$(secret postgres_password)
    server="postgresql+psycopg://${POSTGRES_USER:?}:$(quoted "$password")@${POSTGRES_HOST}:5432"
    export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="$server/airflow"
    export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC="$server/airflow"
    export MLFLOW_BACKEND_STORE_URI="$server/mlflow"
    export RANKMILL_CATALOG_URI="$server/catalog"
fi

if [[ -n ${AIRFLOW_HOME:-} ]]; then
    AIRFLOW__API_AUTH__JWT_SECRET=$(secret airflow_jwt_secret)
    AIRFLOW__CORE__FERNET_KEY=$(secret airflow_fernet_key)
    export AIRFLOW__API_AUTH__JWT_SECRET AIRFLOW__CORE__FERNET_KEY
fi

if [[ -n ${AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE:-} ]]; then
    password=$(secret airflow_admin_password)
    umask 077
    python -c 'import json, sys; print(json.dumps({"admin": sys.argv[1]}))' "$password" \
        > "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
    umask 022
fi

exec "$@"
