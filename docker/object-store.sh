#!/bin/sh
# Starts SeaweedFS with one identity, whose keys are secret files, and one bucket. Nobody comes in
# without a key; master, volume and filer, which ask for none, listen on the loopback address alone.
set -eu

secrets=${RANKMILL_SECRETS_DIR:-/run/secrets}
folder=${OBJECT_STORE_FOLDER:?}
bucket=${OBJECT_STORE_BUCKET:?}

secret() {
    if [ ! -s "$secrets/$1" ]; then
        echo "The secret '$1' is missing or empty: write it to docker/secrets/$1 (see docker/README.md)" >&2
        exit 2
    fi
    tr -d '\n' < "$secrets/$1"
}

umask 077
access_key=$(secret s3_access_key)
secret_key=$(secret s3_secret_key)
case "$access_key$secret_key" in
    *[!A-Za-z0-9_-]*) echo "The secrets s3_access_key and s3_secret_key may hold letters, digits, _ and - only" >&2; exit 2 ;;
esac

mkdir -p "$folder/objects"
cat > "$folder/s3.json" <<CONFIG
{"identities": [{"name": "rankmill",
                 "actions": ["Read:$bucket", "Write:$bucket", "List:$bucket", "Tagging:$bucket"],
                 "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}]}]}
CONFIG
unset access_key secret_key

# Signs what the parts ask of one another, so that nobody else adds an identity by gRPC.
WEED_JWT_FILER_SIGNING_KEY=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export WEED_JWT_FILER_SIGNING_KEY

(
    until echo s3.bucket.list | weed shell "-master=${OBJECT_STORE_MASTER:?}" | grep -qw "$bucket"; do
        echo "s3.bucket.create -name $bucket" | weed shell "-master=$OBJECT_STORE_MASTER" || true
        sleep 1
    done
) > /dev/null 2>&1 &

exec weed server "-dir=$folder/objects" "-s3.config=$folder/s3.json" "$@"
