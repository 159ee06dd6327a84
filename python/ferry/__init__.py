# Drive QEMU, a guest and a live migration from Python.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive QEMU, a guest and a live migration from Python.

migtop and the demo are written on top of this package, and so is what the tests
share, the package ferrytest:

errors    the exception that a user reads, and the wrapper of a script's main()
paths     where things are
qmp       a client of QEMU's monitor protocol
vm        one QEMU process
guest     the Linux guest that keeps accounts of its own memory
observer  timestamps of the guest's heartbeat, taken outside of it
migrate   one migration from start to verified end
"""
