#!/bin/sh
# docker.sh DIR: unpacks Debian's docker.io below DIR for the benchmarks. It is
# not installed, and nothing of it is started.
set -eu
[ ! -e "$1/docker/usr/sbin/dockerd" ] || exit 0
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
apt-get update -qq
(cd "$work" && apt-get download -qq docker.io && dpkg -x docker.io_*.deb "$work/root")
mkdir -p "$1"
mv "$work/root" "$1/docker"
