#!/bin/bash
# Starts a real kube-apiserver on loopback for the charm's question about a model's namespace. It has
# a service account that may ask, and one that may not. The server is built and started by the
# scripts of a tool beside the project (WINDROW_KUBE_BED, else ../shared/tools/kube).
#
#   kube.sh up      builds it if it is missing (some 6 CPU minutes; kept in WINDROW_PARTS), starts it,
#                   and makes the accounts and namespaces of the test
#   kube.sh env     prints what the test reads, as shell exports
#   kube.sh down
#
# It exits with 3, and says why in one line, where the tool or something that it needs is not there.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOOL=${WINDROW_KUBE_BED:-$HERE/../../../shared/tools/kube}
KB=${WINDROW_PARTS:-${HOME:-/root}/.cache/windrow-parts}/kubebed
export KB
API=https://127.0.0.1:16443 # the tool's own port
# The model as Juju makes it: its namespace has this label.
MODEL=0b9ad0b1-5f6e-4f0a-8f43-6b7a1d1f5c02 NAMESPACE=kafka-model

absent() { echo "kube: $*" >&2; exit 3; }
kubectl() { KUBECONFIG=$KB/pki/admin-local.kubeconfig "$KB/bin/kubectl" "$@"; }
up() {
	[ -x "$TOOL/api-up.sh" ] || absent "no kube-apiserver here: $TOOL is not there; set WINDROW_KUBE_BED"
	mkdir -p "$KB"
	exec 9>"$KB/lock"
	flock 9
	if [ ! -x "$KB/bin/kubectl" ]; then
		[ "$(id -u)" = 0 ] || absent "no kube-apiserver here: its first build wants root"
		command -v go >/dev/null || absent "no kube-apiserver here: its first build wants Go 1.24"
		echo "kube: building kube-apiserver, once" >&2
		API_ONLY=1 "$TOOL/install.sh" >"$KB/install.log" 2>&1 || { tail -n 5 "$KB/install.log" >&2; absent "cannot build kube-apiserver; see $KB/install.log"; }
	fi
	[ "$(kubectl get --raw /readyz 2>/dev/null)" = ok ] || "$TOOL/api-up.sh" 9>&-
	kubectl apply -f - >/dev/null <<-YAML
		apiVersion: v1
		kind: Namespace
		metadata:
		  name: $NAMESPACE
		  labels: {model.juju.is/id: $MODEL, model.juju.is/name: $NAMESPACE, app.kubernetes.io/managed-by: juju}
		---
		apiVersion: v1
		kind: ServiceAccount
		metadata: {name: allowed, namespace: default}
		---
		apiVersion: v1
		kind: ServiceAccount
		metadata: {name: denied, namespace: default}
		---
		# What Juju 3.6 and 4.1 give a unit's account without trust.
		apiVersion: rbac.authorization.k8s.io/v1
		kind: ClusterRole
		metadata: {name: sees-namespaces}
		rules: [{apiGroups: [""], resources: [namespaces], verbs: [get, list]}]
		---
		apiVersion: rbac.authorization.k8s.io/v1
		kind: ClusterRoleBinding
		metadata: {name: sees-namespaces}
		roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: sees-namespaces}
		subjects: [{kind: ServiceAccount, name: allowed, namespace: default}]
	YAML
	local account
	for account in allowed denied; do
		(umask 077 && kubectl create token "$account" --namespace default --duration 24h >"$KB/token-$account")
	done
}
case ${1:-} in
	up) up ;;
	env)
		printf 'export %s=%q\n' WINDROW_KUBE_API "$API" WINDROW_KUBE_CA "$KB/pki/ca.crt" WINDROW_KUBE_TOKEN_ALLOWED "$KB/token-allowed" \
			WINDROW_KUBE_TOKEN_DENIED "$KB/token-denied" WINDROW_KUBE_MODEL "$MODEL" WINDROW_KUBE_NAMESPACE "$NAMESPACE"
		;;
	down) if [ -x "$TOOL/api-down.sh" ]; then "$TOOL/api-down.sh"; fi ;;
	*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
