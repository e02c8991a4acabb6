#!/bin/bash
# Gives the use case a Kubernetes cluster and a Juju controller: the user's, or one made for it.
#
#   cluster.sh up                 waits until the controller answers; exits with 3, and says why in
#                                 one line, if there is none
#   cluster.sh down               ends what `up` started
#   cluster.sh juju ARGUMENT...   runs the client
#   cluster.sh kubectl ARGUMENT...
#   cluster.sh import IMAGE.tar   makes an image known to all pods
#
# WINDROW_CONTROLLER=NAME takes that controller of the user's, for example MicroK8s as in the use
# case, and kubectl from the PATH. Images are then imported by WINDROW_IMPORT, a command that takes
# the file's name; without it, by "microk8s ctr image import".
#
# Without WINDROW_CONTROLLER this calls the scripts of a tool beside the project (WINDROW_KUBE_BED,
# else ../shared/tools/kube). They build a node and Juju from package registries (some 10 CPU
# minutes and 2 GB, kept in WINDROW_PARTS) and start them, as root.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOOL=${WINDROW_KUBE_BED:-$HERE/../../../shared/tools/kube}
KB=${WINDROW_PARTS:-${HOME:-/root}/.cache/windrow-parts}/node
export KB
MINE=${WINDROW_CONTROLLER:-}
[ -z "$MINE" ] || export JUJU_CONTROLLER=$MINE # whichever controller is the client's current one

absent() { echo "deploy: left out: $*" >&2; exit 3; }
up() {
	if [ -n "$MINE" ]; then
		juju show-controller "$MINE" >/dev/null || { echo "deploy: there is no controller $MINE" >&2; exit 1; }
		kubectl version >/dev/null || { echo "deploy: kubectl reaches no cluster" >&2; exit 1; }
		return
	fi
	[ -x "$TOOL/node-up.sh" ] || absent "no Juju controller: set WINDROW_CONTROLLER, or WINDROW_KUBE_BED as $TOOL is not there"
	[ "$(id -u)" = 0 ] || absent "no Juju controller: set WINDROW_CONTROLLER; making one wants root"
	mkdir -p "$KB"
	exec 9>"$KB/lock"
	flock 9
	if [ ! -f "$KB/built" ]; then
		command -v go >/dev/null || absent "no Juju controller: set WINDROW_CONTROLLER; making one wants Go 1.26"
		echo "deploy: building Kubernetes and Juju, once; see $KB/build.log" >&2
		{ "$TOOL/install.sh" && "$TOOL/juju/build.sh" && "$TOOL/juju/images.sh"; } >"$KB/build.log" 2>&1 9>&- ||
			{ tail -n 5 "$KB/build.log" >&2; absent "cannot build Kubernetes and Juju; see $KB/build.log"; }
		touch "$KB/built"
	fi
	# The node's shell of a run that was cut off is swept first: a half-old cluster would answer for this one.
	{ "$TOOL/node-down.sh" && "$TOOL/node-up.sh" && "$TOOL/juju/bootstrap.sh"; } >"$KB/up.log" 2>&1 9>&- ||
		{ tail -n 5 "$KB/up.log" >&2; echo "deploy: the node does not come up; see $KB/up.log" >&2; exit 1; }
}
verb=${1:-}
[ $# = 0 ] || shift
case $verb in
	up) up ;;
	down) [ -n "$MINE" ] || "$TOOL/node-down.sh" >/dev/null 2>&1 ;;
	juju) if [ -n "$MINE" ]; then exec juju "$@"; else exec "$TOOL/juju/j" "$@"; fi ;;
	kubectl)
		[ -n "$MINE" ] && exec kubectl "$@"
		KUBECONFIG=$KB/pki/admin.kubeconfig exec "$KB/bin/kubectl" "$@"
		;;
	import)
		# shellcheck disable=SC2086 # a command with its arguments
		if [ -n "$MINE" ]; then exec ${WINDROW_IMPORT:-microk8s ctr image import} "$1"; fi
		# shellcheck source=/dev/null # the tool's own places
		. "$TOOL/env.sh"
		exec ctr -a "$RUN/containerd.sock" -n k8s.io images import "$1"
		;;
	*) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
