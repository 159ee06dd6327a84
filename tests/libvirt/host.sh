#!/bin/bash
# Turn this process into the libvirt daemon of one host of the libvirt test.
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# usage: host.sh NAME DIR [EMULATOR=BINARY]...
#
# To be started in mount, UTS and network namespaces of its own: it lays the
# host's own /etc/libvirt, /run/libvirt and /var, found below DIR, over the
# machine's, and each BINARY over the (existing) file EMULATOR.

set -euo pipefail

name=$1
dir=$2
shift 2

hostname "host-$name.test"

# Before /var is covered: a binary may be below it.
for pair; do
    mount --bind "${pair#*=}" "${pair%%=*}"
done
for file in hosts passwd group; do
    mount --bind "$dir/etc/$file" "/etc/$file"
done
mount --bind "$dir/etc/libvirt" /etc/libvirt
mount --bind "$dir/run" /run/libvirt
mount --bind "$dir/var" /var

exec libvirtd --config /etc/libvirt/libvirtd.conf \
              --pid-file /run/libvirt/libvirtd.pid
