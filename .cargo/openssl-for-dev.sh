#!/bin/sh
# The crate openssl-src runs `perl ./Configure ...` to configure the OpenSSL that is built into
# librdkafka. This script stands in for `perl` there (see `.cargo/config.toml`).
#
# In the dev profile it leaves out what windrow's connections to Kafka do not use, and optimises
# less: 100 seconds of CPU time instead of 230. What remains is TLS 1.2 and 1.3 with RSA, ECDSA,
# X25519, AES-GCM and ChaCha20, and the SHA-2 of SCRAM; its inner loops are assembler either way.
# Every other profile, the charm's above all, gets OpenSSL as openssl-src configures it.
if [ "${PROFILE:-}" != debug ]; then
  exec perl "$@"
fi
exec perl "$@" -O1 \
  no-apps no-docs no-makedepend no-async no-engine no-ui-console no-ssl-trace no-uplink \
  no-quic no-dtls no-srtp no-srp no-psk no-nextprotoneg no-multiblock no-tls-deprecated-ec \
  no-cms no-cmp no-ct no-http no-ocsp no-rfc3779 no-ts \
  no-aria no-bf no-cast no-ec2m no-gost no-md4 no-mdc2 no-rc2 no-rc4 no-rmd160 no-sm2 no-sm3 \
  no-sm4 no-whirlpool no-argon2 no-blake2 no-ocb no-scrypt no-siv \
  no-dsa no-ml-dsa no-ml-kem no-slh-dsa
