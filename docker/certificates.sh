#!/bin/sh
# Make a certificate authority and one certificate for each server, once.
# Usage: certificates.sh DIR
set -eu
folder=$1
umask 077
mkdir -p "$folder"
chmod 755 "$folder"
cd "$folder"
if [ ! -s ca.pem ]; then
    openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=steelyard" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" \
        -keyout ca.key -out ca.tmp 2>/dev/null
    mv ca.tmp ca.pem
fi
for server in opensearch milvus; do
    if [ ! -s "$server.pem" ]; then
        openssl req -newkey rsa:3072 -nodes -subj "/CN=$server" \
            -keyout "$server.key" -out "$server.csr" 2>/dev/null
        cat >"$server.ext" <<EOF
subjectAltName=DNS:$server,DNS:localhost,IP:127.0.0.1
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
EOF
        openssl x509 -req -in "$server.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 \
            -extfile "$server.ext" -out "$server.tmp" 2>/dev/null
        rm "$server.csr" "$server.ext"
        mv "$server.tmp" "$server.pem"
    fi
done
chmod 644 ./*.pem
# OpenSearch runs as user 1000 in its image, Milvus as root.
if [ "$(id -u)" = 0 ]; then
    chown 1000 opensearch.key
fi
