# What the tests and the benchmark share.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests and the benchmark share; nothing of it is installed.

It is written on top of the package ferry, which does not use it:

abilities  what a QEMU can do, and the exception by which a test is skipped
basetests  tests of the base, judged by what they do on the base
bench      the paired benchmark
drain      a peer that takes a stream and does nothing with it
hugepages  huge pages of the host
lanes      cases of a suite that run side by side
postcopy   a migration that is taken through the steps of postcopy
process    programs that are run with a time limit, and ended with their children
qtest      a client of QEMU's qtest protocol
strict     switchovers with a limit on the downtime, and how they are judged
suite      cases, flags, time limits and output of a suite of tests
tls        credentials for a migration with TLS
wait       waiting for something that takes a moment
"""
