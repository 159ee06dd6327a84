# Machines with many devices, for streams that lie about them.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines with many devices; what a QEMU was built without is left out."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DISK = 16 << 20         # bytes of each disk, which holds nothing


@dataclass(frozen=True)
class Machine:
    """A machine type and its devices, each with what it needs before it."""
    name: str
    type: str
    devices: tuple[tuple[str, ...], ...]
    options: tuple[str, ...] = ()


def disk(node: str) -> str:
    """A disk without a file."""
    return f'-blockdev null-co,node-name={node},size={DISK},read-zeroes=on'


def device(text: str, *before: str) -> tuple[str, ...]:
    """A -device with TEXT, and the options that it needs BEFORE."""
    return (text, *before)


VIRTIO = (
    device('virtio-blk-pci,drive=d0,bootindex=1', disk('d0')),
    device('virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01',
           '-netdev user,id=n0'),
    device('virtio-scsi-pci,id=scsi'),
    device('scsi-hd,bus=scsi.0,drive=d1,bootindex=2', disk('d1')),
    device('scsi-cd,bus=scsi.0'),
    device('virtio-serial-pci,id=serial'),
    device('virtserialport,bus=serial.0,chardev=c0', '-chardev null,id=c0'),
    device('virtconsole,bus=serial.0,chardev=c1', '-chardev null,id=c1'),
    device('virtio-rng-pci'),
    device('virtio-balloon-pci,free-page-hint=on,iothread=t0',
           '-object iothread,id=t0'),
    device('virtio-gpu-pci'),
    device('virtio-keyboard-pci'),
    device('virtio-tablet-pci'),
)

Q35 = Machine('q35', 'q35,usb=off', VIRTIO + (
    device('ide-hd,bus=ide.0,drive=d2,bootindex=3', disk('d2')),
    device('ide-cd,bus=ide.1'),
    device('qemu-xhci,id=xhci'),
    device('usb-tablet,bus=xhci.0'),
    device('usb-storage,bus=xhci.0,drive=d3', disk('d3')),
    device('e1000e,netdev=n1,mac=52:54:00:00:00:02', '-netdev user,id=n1'),
    device('VGA'),
    device('intel-hda'),
    device('hda-duplex,audiodev=a0', '-audiodev none,id=a0'),
    device('pvpanic-pci'),
    device('isa-serial,chardev=c2', '-chardev null,id=c2'),
    device('pcie-root-port,id=root1,chassis=1'),
    device('vmcoreinfo'),
))

# What else a q35 can have
MORE = Machine('q35-more', 'q35,usb=off,vmport=on', (
    device('virtio-mem-pci,memdev=m0,requested-size=0',
           '-object memory-backend-ram,id=m0,size=16M'),
    device('virtio-iommu-pci'),
    device('pc-dimm,memdev=m1', '-object memory-backend-ram,id=m1,size=16M'),
    device('lsi53c895a,id=lsi'),
    device('scsi-hd,bus=lsi.0,drive=d0', disk('d0')),
    device('megasas,id=megasas'),
    device('scsi-hd,bus=megasas.0,drive=d1', disk('d1')),
    device('pvscsi,id=pvscsi'),
    device('mptsas1068,id=mptsas'),
    device('am53c974,id=am53'),
    device('sdhci-pci,id=sdhci'),
    device('sd-card,drive=d2', disk('d2')),
    device('e1000,netdev=n0', '-netdev user,id=n0'),
    device('rtl8139,netdev=n1', '-netdev user,id=n1'),
    device('vmxnet3,netdev=n2', '-netdev user,id=n2'),
    device('igb,netdev=n3', '-netdev user,id=n3'),
    device('pcnet,netdev=n4', '-netdev user,id=n4'),
    device('ne2k_pci,netdev=n5', '-netdev user,id=n5'),
    device('i82550,netdev=n6', '-netdev user,id=n6'),
    device('tulip,netdev=n7', '-netdev user,id=n7'),
), ('-m', '16M,slots=2,maxmem=1G'))

# ... on its other buses
BUSES = Machine('q35-buses', 'q35,usb=off', (
    device('ich9-usb-ehci1,id=ehci'),
    device('usb-storage,bus=ehci.0,drive=d3', disk('d3')),
    device('piix3-usb-uhci,id=uhci'),
    device('usb-kbd,bus=uhci.0'),
    device('usb-hub,bus=uhci.0'),
    device('pci-ohci,id=ohci'),
    device('usb-mouse,bus=ohci.0'),
    device('cirrus-vga'),
    device('bochs-display'),
    device('vmware-svga'),
    device('ES1370,audiodev=a0', '-audiodev none,id=a0'),
    device('AC97,audiodev=a1', '-audiodev none,id=a1'),
    device('isa-parallel,chardev=c1', '-chardev null,id=c1'),
    device('isa-fdc'),
    device('isa-ipmi-kcs,bmc=b0', '-device ipmi-bmc-sim,id=b0'),
    device('ivshmem-plain,master=on,memdev=m2',
           '-object memory-backend-ram,id=m2,size=1M,share=on'),
    device('i6300esb'),
    device('vmgenid'),
    device('pci-serial,chardev=c3', '-chardev null,id=c3'),
    device('pci-bridge,id=bridge,chassis_nr=2'),
    device('pcie-pci-bridge'),
    device('ioh3420,id=ioh,chassis=3'),
    device('edu'),
    device('isa-applesmc'),
))

PC = Machine('pc', 'pc,usb=on', (
    device('ide-hd,bus=ide.0,drive=d0', disk('d0')),
    device('ide-cd,bus=ide.1'),
    device('VGA'),
    device('virtio-blk-pci,drive=d1,disable-modern=on', disk('d1')),
    device('sb16,audiodev=a0', '-audiodev none,id=a0'),
    device('adlib,audiodev=a1', '-audiodev none,id=a1'),
    device('gus,audiodev=a2', '-audiodev none,id=a2'),
    device('ne2k_isa,netdev=n0,irq=5', '-netdev user,id=n0'),
    device('isa-serial,chardev=c0', '-chardev null,id=c0'),
    device('ib700'),
    device('pvpanic'),
))

ALL = (Q35, MORE, BUSES, PC)


def arguments(machine: Machine, binary: Path) -> list[str]:
    """The command line of MACHINE, as far as BINARY has its devices."""
    known = subprocess.run([str(binary), '-machine', 'none', '-device',
                            'help'], capture_output=True, text=True,
                           check=True, timeout=30).stdout
    line = list(machine.options)
    for what, *before in machine.devices:
        if f'name "{what.partition(",")[0]}"' in known:
            for option in before:
                line += option.split(' ')
            line += ['-device', what]
    return line
