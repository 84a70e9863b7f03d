#!/bin/sh
# deps.sh [GO DIR]: installs the Debian packages that bottles and the tests need,
# where they are missing (Debian starts containerd then, if systemd runs). With
# GO and DIR it also installs a registry and builds the tests' pinned containerd,
# CNI plugins and runsc into DIR, and fetches real agents from npm's registry
# where that can be reached.
set -eu

packages='containerd runc containernetworking-plugins nftables iptables busybox-static iproute2 procps'
[ $# -eq 0 ] || packages="$packages docker-registry bzip2 xz-utils curl ca-certificates git openssh-client openssh-server sudo"
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

# agent PACKAGE FILE SHA512: without it tests of real agents are skipped.
agent() {
	[ -e "$dir/$2.tgz" ] && return
	if ! curl -sSfL --retry 3 -m 300 -o "$dir/$2.part" "${NPM_CONFIG_REGISTRY:-https://registry.npmjs.org}/$1/-/$2.tgz"; then
		echo "deps.sh: $1 cannot be fetched: tests of it are skipped" >&2
		return
	fi
	echo "$3  $dir/$2.part" | sha512sum --check --quiet
	mv "$dir/$2.part" "$dir/$2.tgz"
}

if [ "$(uname -m)" = x86_64 ]; then
	agent @anthropic-ai/claude-code-linux-x64 claude-code-linux-x64-2.1.332 7f8256873c18bad2481d2702eff75838f5fab36f2db7b6400e1b0e8bccf0387ab97c53c4b94782861d8d31f8a74a0d06ad472463169e79b0b88740ea88accb73
	agent @openai/codex codex-0.169.0-linux-x64 a34e4dc803820f28123d1a35ca29f3c6f91149d9ac672043f44ee66e99a345a9d27ccf25ca9a96b50804a385df364c21b82476685bbc9a518eb101855d56d5c3
fi
