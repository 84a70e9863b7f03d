#!/bin/sh
# deps.sh DIR: installs what the virtual machine of the tests needs (apt), and
# makes its kernel and root disk in DIR/vm-N, N being the version of this recipe.
set -eu

recipe=2
dir=$1/vm-$recipe

missing=
for package in qemu-system-x86 qemu-utils mmdebstrap e2fsprogs busybox-static make; do
	dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

[ ! -e "$dir/root.raw" ] || exit 0
mkdir -p "$dir"
work=$(mktemp -d "$dir/work.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work"

# The kernel's package is only unpacked: to install it would make an initrd, and
# this kernel boots from an NVMe disk without one.
kernel() {
	cd "$work"
	apt-get update -qq
	image=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
	apt-get download -qq "$image" -o APT::Sandbox::User=root
	dpkg-deb --fsys-tarfile "$image"_*.deb | tar -x -C "$1" --keep-directory-symlink ./boot ./lib/modules
	mv "$1"/boot/vmlinuz-* "$dir/vmlinuz"
	chroot "$1" depmod "${image#linux-image-}"
	cd /
}

# What is slow here, or asks somebody, or waits for hardware, is not started.
settings() {
	echo carboy-vm >"$1/etc/hostname"
	echo 0123456789abcdef0123456789abcdef >"$1/etc/machine-id"
	printf '127.0.0.1 localhost carboy-vm\n' >"$1/etc/hosts"
	echo nameserver 192.0.2.1 >"$1/etc/resolv.conf" # which nobody has (RFC 5737)
	printf 'overlay\nbr_netfilter\nveth\n' >"$1/etc/modules-load.d/carboy.conf"
	mkdir -p "$1/var/log/journal" "$1/etc/systemd/system.conf.d"
	printf '[Manager]\nDefaultTimeoutStartSec=180s\nDefaultTimeoutStopSec=180s\n' >"$1/etc/systemd/system.conf.d/slow.conf"
	for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
		fstrim.timer getty@tty1.service serial-getty@ttyS0.service systemd-hwdb-update.service ldconfig.service; do
		ln -sf /dev/null "$1/etc/systemd/system/$unit"
	done
}

root=$work/root
mmdebstrap --mode=root --variant=minbase --quiet \
	--include=systemd,systemd-sysv,udev,dbus,containerd,runc,containernetworking-plugins,nftables,iptables,iproute2,procps,kmod,qemu-guest-agent,busybox-static \
	bookworm "$root"
kernel "$root"
settings "$root"
mke2fs -q -t ext4 -d "$root" "$work/root.raw" 4G
mv "$work/root.raw" "$dir/root.raw"
