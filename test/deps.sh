#!/bin/sh
# deps.sh [GO DIR]: installs the Debian packages that bottles and the tests need,
# where they are missing (Debian starts containerd then, if systemd runs). With
# GO and DIR it also installs a registry and builds the tests' pinned containerd,
# CNI plugins and runsc into DIR.
set -eu

packages='containerd runc containernetworking-plugins nftables iptables busybox-static iproute2 procps'
[ $# -eq 0 ] || packages="$packages docker-registry bzip2 xz-utils git openssh-client openssh-server"
missing=
for package in $packages; do
	dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
	# The tests start their own registry and their own sshd.
	if [ -d /run/systemd/system ]; then
		case $missing in *docker-registry*) systemctl disable --now docker-registry ;; esac
		case $missing in *openssh-server*) systemctl disable --now ssh ;; esac
	fi
fi

[ $# -gt 0 ] || exit 0
go=$1 dir=$2

# build VERSIONED-NAME PACKAGE@VERSION...
build() {
	into=$dir/$1
	shift
	[ -e "$into/.done" ] && return
	for package; do
		CGO_ENABLED=0 GOBIN=$into GOFLAGS=-buildvcs=false "$go" install -trimpath -ldflags '-s -w' "$package"
	done
	touch "$into/.done"
}

containerd=github.com/containerd/containerd/v2/cmd
plugins=github.com/containernetworking/plugins/plugins
build containerd-2.4.2 $containerd/containerd@v2.4.2 $containerd/containerd-shim-runc-v2@v2.4.2
build cni-1.9.1 $plugins/main/ptp@v1.9.1 $plugins/ipam/host-local@v1.9.1
build runsc-20260905 gvisor.dev/gvisor/runsc@v0.0.0-20260905035102-160fafc42237
